"""Instance-specific asymmetric temperature scaling: the wrong classes' temperature is chosen per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.checks import positive
from ..core.errors import InputError
from ._logits import LogitLoss, full_precision, is_label, same_classes, softened_cross_entropy
from .wrong_classes import wrong_class_variance


def isats_probabilities(
    teacher_logits: Tensor, labels: Tensor, *, tau_true: float, tau_wrong_grid: Sequence[float]
) -> Tensor:
    """Compute `ats_probabilities` with the wrong-class temperature that maximizes each sample's wrong-class variance.

    This is our reading of https://arxiv.org/abs/2405.13078; only the abstract was available. "Instance-specific" and
    "maximise the variance" are the paper's, the grid and the guard are ours. Without a guard, the variance is largest
    if one wrong class gets all probability. Only temperatures at which the true class leads are therefore considered.
    If the true class leads at no temperature, the one that gives it the highest probability is used.

    Args:
        teacher_logits: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        tau_true: Temperature of the true class.
        tau_wrong_grid: Candidate temperatures for all other classes, G of them. The smallest one matters most.

    Returns:
        Probabilities, shape ``(N, C)``; rows sum to 1. A temporary tensor has shape ``(N, G, C)``.

    Raises:
        ValueError: If ``labels`` is not of shape ``(N,)``.
    """
    (logits,) = full_precision(teacher_logits)
    true = is_label(logits, labels).unsqueeze(1)
    grid = torch.tensor(tau_wrong_grid, dtype=logits.dtype, device=logits.device).view(1, -1, 1)
    logits = logits.unsqueeze(1)
    probabilities = torch.where(true, logits / tau_true, logits / grid).softmax(2)
    samples, temperatures, _ = probabilities.shape
    variance = wrong_class_variance(probabilities.flatten(0, 1), labels.repeat_interleave(temperatures))
    of_true = (probabilities * true).sum(2)
    leads = of_true >= probabilities.masked_fill(true, 0).amax(2)
    # Variances are at least 0 and `of_true - 2` is negative, so temperatures at which the true class leads win.
    best = torch.where(leads, variance.view(samples, temperatures), of_true - 2).argmax(1)
    return probabilities[torch.arange(len(best), device=best.device), best]


class ISATS(LogitLoss):
    """Instance-specific ATS, after https://arxiv.org/abs/2405.13078; see `isats_probabilities`.

    The loss is the cross-entropy of `ats_loss`, with these probabilities. Mixup and CutMix are refused.

    Args:
        tau_true: Teacher temperature of the true class.
        tau_wrong_grid: Candidates for the teacher temperature of all other classes, chosen per sample. None is 1 to
            ``tau_true`` in steps of 0.5. The default is ours; the paper's grid is unknown to us.
        tau_student: Temperature of the student.

    Raises:
        InputError: If a temperature is not positive, or the grid is empty.
    """

    ce_weight = kd_weight = 0.5

    accepts_soft_labels = False

    def __init__(
        self, tau_true: float = 4.0, tau_wrong_grid: Sequence[float] | None = None, tau_student: float = 1.0
    ) -> None:
        super().__init__()
        positive(tau_true=tau_true, tau_student=tau_student)
        if tau_wrong_grid is None:
            tau_wrong_grid = [1 + step / 2 for step in range(max(0, int(2 * (tau_true - 1))) + 1)]
        if not tau_wrong_grid:
            raise InputError("tau_wrong_grid is empty: give the temperatures to choose from, e.g. [1, 2, 3]")
        for index, value in enumerate(tau_wrong_grid):
            positive(**{f"tau_wrong_grid[{index}]": value})
        self.tau_true = tau_true
        self.tau_wrong_grid = tuple(tau_wrong_grid)
        self.tau_student = tau_student

    def build(self, teacher_logits: Tensor) -> None:
        """Raise an error for two classes, because one wrong class has no variance."""
        if teacher_logits.shape[1] < 3:
            raise InputError(
                "ISATS chooses temperatures by the variance of the wrong classes, and of two classes only one is wrong:"
                " choose ATS"
            )

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return losses, shape ``(N,)``."""
        same_classes(student_logits, teacher_logits)
        probabilities = isats_probabilities(
            teacher_logits, labels, tau_true=self.tau_true, tau_wrong_grid=self.tau_wrong_grid
        )
        return softened_cross_entropy(student_logits, probabilities, self.tau_student)
