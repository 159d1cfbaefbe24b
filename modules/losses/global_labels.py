"""Fusion of a sample's teacher probabilities with their mean over the class."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..core.checks import check, positive
from ..core.errors import InputError
from ._logits import LogitLoss, same_classes, softened_cross_entropy
from .ats import ats_probabilities


def class_means(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean of the teacher's probabilities over the samples of every class.

    Args:
        probabilities: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.

    Returns:
        Shape ``(C, C)``; for a class without samples the row is its one-hot vector.
    """
    classes = probabilities.shape[1]
    counts = labels.bincount(minlength=classes).unsqueeze(1)
    sums = probabilities.new_zeros(classes, classes).index_add_(0, labels, probabilities)
    return torch.where(counts > 0, sums / counts.clamp(min=1), torch.eye(classes).to(sums))


def fuse_global_labels(probabilities: Tensor, labels: Tensor, means: Tensor, *, ratio: float) -> Tensor:
    """Compute ``(1 - ratio) · p + ratio · m_y`` with a sample's probabilities p and the mean m_y of its class y.

    This is our reading of "fusing global information" in https://arxiv.org/abs/2405.13078. Only the abstract was
    available, so the paper's method may differ.

    Args:
        probabilities: The teacher's probabilities p, at any temperature, shape ``(N, C)``.
        labels: Class indices y, shape ``(N,)``.
        means: Mean probabilities m of every class, shape ``(C, C)``, from `class_means` on the training images.
        ratio: Share of the mean, in [0, 1].

    Returns:
        Probabilities, shape ``(N, C)``; rows sum to 1.
    """
    return (1 - ratio) * probabilities + ratio * means[labels]


class GlobalLabels(LogitLoss):
    """ATS with teacher probabilities fused with their class means, after https://arxiv.org/abs/2405.13078.

    This is our reading of the paper; see `fuse_global_labels`. The loss is as in `ats_loss`. Mixup and CutMix are
    refused.

    Args:
        logits: File with the teacher's logits on the training images, written by ``recipes temperatures``.
        ratio: Share of the class mean. The default is ours; the paper's value is unknown to us.
        tau_true: Teacher temperature of the true class.
        tau_wrong: Teacher temperature of all other classes. Equal values for both give ordinary temperature scaling.
        tau_student: Temperature of the student.

    Raises:
        InputError: If the file is missing or holds no logits and labels, ``ratio`` lies outside [0, 1], or a
            temperature is not positive.
    """

    ce_weight = kd_weight = 0.5

    accepts_soft_labels = False
    means: Tensor

    def __init__(
        self,
        logits: str,
        ratio: float = 0.5,
        tau_true: float = 4.0,
        tau_wrong: float = 2.0,
        tau_student: float = 1.0,
    ) -> None:
        super().__init__()
        positive(tau_true=tau_true, tau_wrong=tau_wrong, tau_student=tau_student)
        check(0 <= ratio <= 1, "ratio", ratio, "in [0, 1]")
        if not Path(logits).is_file():
            raise InputError(f"logits {logits} does not exist: `recipes temperatures` writes it")
        try:
            file = safetensors.torch.load_file(logits)
            teacher_logits, labels = file["logits"], file["labels"]
        except (SafetensorError, KeyError) as error:
            raise InputError(f"logits {logits} holds no logits and labels: `recipes temperatures` writes it") from error
        self.ratio = ratio
        self.tau_true = tau_true
        self.tau_wrong = tau_wrong
        self.tau_student = tau_student
        probabilities = ats_probabilities(teacher_logits, labels, tau_true=tau_true, tau_wrong=tau_wrong)
        self.register_buffer("means", class_means(probabilities, labels), persistent=False)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return losses, shape ``(N,)``."""
        same_classes(student_logits, teacher_logits)
        probabilities = ats_probabilities(teacher_logits, labels, tau_true=self.tau_true, tau_wrong=self.tau_wrong)
        same_classes(probabilities[:1], self.means[:1])
        probabilities = fuse_global_labels(probabilities, labels, self.means, ratio=self.ratio)
        return softened_cross_entropy(student_logits, probabilities, self.tau_student)
