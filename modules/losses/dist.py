"""DIST: the student's probabilities correlate with the teacher's, over classes and over the batch."""

from __future__ import annotations

import warnings

from torch import Tensor

from ..core.checks import not_negative, positive
from ..core.errors import InputError
from ._logits import LogitLoss, full_precision, same_classes


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """T² (beta (1 - r of each sample over classes) + gamma (1 - mean r of each class over the batch)).

    r is Pearson's correlation of the softened probabilities (https://arxiv.org/abs/2205.10536). The second part says
    something of the batch, so it is the same for every sample; it depends on the batch size, and is gamma T² for a
    batch of one. The factor T² is in the authors' code and not in the paper; it is 1 at the default.

    Args:
        student_logits: Shape ``(N, C)``.
        teacher_logits: Shape ``(N, C)``.
        beta: Weight of the relation between classes.
        gamma: Weight of the relation within a class.
        temperature: T, by which both logits are divided.

    Returns:
        Losses, shape ``(N,)``.

    Raises:
        ValueError: If the shapes differ.
    """
    same_classes(student_logits, teacher_logits)
    student, teacher = ((z / temperature).softmax(1) for z in full_precision(student_logits, teacher_logits))
    between = 1 - _correlation(student, teacher, 1)
    within = 1 - _correlation(student, teacher, 0).mean()
    return temperature**2 * (beta * between + gamma * within)


def _correlation(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Pearson's correlation along a dimension; 0 where there is no variance."""
    x, y = x - x.mean(dim, keepdim=True), y - y.mean(dim, keepdim=True)
    return (x * y).sum(dim) / (x.norm(dim=dim) * y.norm(dim=dim) + 1e-8)


class DIST(LogitLoss):
    """Knowledge distillation from a stronger teacher (https://arxiv.org/abs/2205.10536); see `dist_loss`.

    The authors use weight 2 on CIFAR-100, with temperature 4, and 1 for cross-entropy. A student with all logits equal,
    e.g. from a classifier that starts at zero, has no correlation and a gradient some 10^8 times too large.

    Args:
        beta: Weight of the relation between classes.
        gamma: Weight of the relation within a class.
        temperature: Divides both logits.

    Raises:
        InputError: If ``temperature`` is not positive or a weight is negative.
    """

    kd_weight = 2.0

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        not_negative(beta=beta, gamma=gamma)
        positive(temperature=temperature)
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature

    def build(self, teacher_logits: Tensor) -> None:
        """Say that two classes have nothing to correlate, and refuse to go without the relation over the batch."""
        if teacher_logits.shape[1] > 2 or self.beta == 0:
            return
        reason = f"beta={self.beta} weighs a correlation over classes, which is always 1 or -1 for two classes"
        if self.gamma == 0:
            raise InputError(f"{reason}, and gamma=0 leaves out the rest: raise gamma, or choose KD")
        warnings.warn(f"{reason} and teaches nothing: only gamma={self.gamma} counts", stacklevel=2)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Losses, shape ``(N,)``; the labels are not looked at."""
        return dist_loss(student_logits, teacher_logits, beta=self.beta, gamma=self.gamma, temperature=self.temperature)
