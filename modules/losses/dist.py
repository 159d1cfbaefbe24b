"""DIST: correlate the student's probabilities with the teacher's, over classes and over the batch."""

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
    """Compute ``T² (beta (1 - r_i) + gamma (1 - mean_c r_c))`` for each sample i (https://arxiv.org/abs/2205.10536).

    r is Pearson's correlation between the softened probabilities of student and teacher: r_i over the classes of sample
    i, r_c over the batch for class c. The second term is the same for all samples. It depends on the batch size and is
    gamma T² for a batch of one. The factor T² follows the authors' code, not the paper; it is 1 by default.

    Args:
        student_logits: Shape ``(N, C)``.
        teacher_logits: Shape ``(N, C)``.
        beta: Weight of the correlation over classes.
        gamma: Weight of the correlation over the batch.
        temperature: T, the divisor of both logits.

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
    """Compute Pearson's correlation along a dimension; 0 if the variance is 0."""
    x, y = x - x.mean(dim, keepdim=True), y - y.mean(dim, keepdim=True)
    return (x * y).sum(dim) / (x.norm(dim=dim) * y.norm(dim=dim) + 1e-8)


class DIST(LogitLoss):
    """Knowledge distillation from a stronger teacher (https://arxiv.org/abs/2205.10536); see `dist_loss`.

    On CIFAR-100 the authors weigh this loss by 2 and cross-entropy by 1, with temperature 4. If the student's logits
    are all equal, e.g. with a zero-initialized classifier, the gradient is about 10^8 times too large.

    Args:
        beta: Weight of the correlation over classes.
        gamma: Weight of the correlation over the batch.
        temperature: Divisor of both logits.

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
        """Warn that the term over classes is useless for two classes; raise an error if the other term has weight 0."""
        if teacher_logits.shape[1] > 2 or self.beta == 0:
            return
        reason = f"beta={self.beta} weighs a correlation over classes, which is always 1 or -1 for two classes"
        if self.gamma == 0:
            raise InputError(f"{reason}, and gamma=0 leaves out the rest: raise gamma, or choose KD")
        warnings.warn(f"{reason} and teaches nothing: only gamma={self.gamma} counts", stacklevel=2)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return losses, shape ``(N,)``; the labels are not used."""
        return dist_loss(student_logits, teacher_logits, beta=self.beta, gamma=self.gamma, temperature=self.temperature)
