"""Logit standardization: scale each image's logits to mean 0 and standard deviation 1, then apply any loss."""

from __future__ import annotations

from torch import Tensor

from ..core.errors import InputError
from ._logits import LogitLoss, full_precision
from .kd import KD


def standardize_logits(logits: Tensor) -> Tensor:
    """Compute ``(z - mean(z)) / std(z)`` over the classes of each sample (https://arxiv.org/abs/2403.01427).

    The standard deviation is the unbiased one.

    Args:
        logits: Logits z, shape ``(N, C)``.

    Returns:
        Shape ``(N, C)``; zeros if all logits of a sample are equal.

    Examples:
        >>> standardize_logits(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[-1.0000,  0.0000,  1.0000]])
    """
    (logits,) = full_precision(logits)
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7)


class LSKD(LogitLoss):
    """Logit standardization in knowledge distillation (https://arxiv.org/abs/2403.01427); see `standardize_logits`.

    The student then need not match the size of the teacher's logits. The paper weighs this loss by 9 and cross-entropy
    by 0.1. If the student's logits are all equal, e.g. with a zero-initialized classifier, the gradient is about 10^7
    times too large.

    Args:
        loss: Loss of the standardized logits; None is `KD` with temperature 2, as in the paper.

    Raises:
        InputError: When the recipe is built, if there are two classes or the teacher gives an infinite logit.
    """

    kd_weight = 9.0

    def __init__(self, loss: LogitLoss | None = None) -> None:
        super().__init__()
        self.loss = loss if loss is not None else KD(temperature=2.0)
        self.accepts_soft_labels = self.loss.accepts_soft_labels
        self.ce_weight, self.kd_warmup = self.loss.ce_weight, self.loss.kd_warmup

    def build(self, teacher_logits: Tensor) -> None:
        """Raise an error for two classes, because their standardized logits are constant, and for infinite logits."""
        if teacher_logits.shape[1] < 3:
            raise InputError(
                "LSKD teaches nothing for two classes, whose standardized logits are always 0.71 and -0.71: give it"
                " three classes or more, or choose KD"
            )
        if not teacher_logits.isfinite().all():
            raise InputError(
                "LSKD needs finite logits, as it divides by their standard deviation, but the teacher's are not: choose"
                " KD or DKD, which leave out a class of logit -inf"
            )
        self.loss.build(standardize_logits(teacher_logits))

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return losses, shape ``(N,)``."""
        return self.loss(standardize_logits(student_logits), standardize_logits(teacher_logits), labels)
