"""Decoupled knowledge distillation: separate weights for the true class and the other classes."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.checks import not_negative, positive
from ..core.errors import InputError
from ._logits import LogitLoss, divergence, full_precision, is_label, same_classes


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Compute ``T² (alpha · TCKD + beta · NCKD)`` (https://arxiv.org/abs/2203.08679).

    TCKD is KL(teacher ‖ student) between the two outcomes "true class" and "any other class". NCKD is KL(teacher ‖
    student) between the other classes, renormalized without the true class. `kd_loss` is T² (TCKD + (1 - p_y) NCKD),
    where p_y is the teacher's softened probability of the true class.

    The computation is in log-space, so it stays finite for a confident teacher. A class with teacher logit -inf adds
    nothing. NCKD is 0 for two classes, and if all other classes have teacher logit -inf.

    Args:
        student_logits: Shape ``(N, C)``.
        teacher_logits: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        alpha: Weight of TCKD.
        beta: Weight of NCKD. On CIFAR-100 the paper uses 2, 6 or 8, depending on the pair of networks.
        temperature: T, the divisor of both logits.

    Returns:
        Losses in nats, shape ``(N,)``.

    Raises:
        ValueError: If the shapes differ or ``labels`` is not of shape ``(N,)``.
    """
    same_classes(student_logits, teacher_logits)
    true = is_label(teacher_logits, labels)
    (student_true, student_others, student_wrong), (teacher_true, teacher_others, teacher_wrong) = (
        _decoupled(logits / temperature, true) for logits in full_precision(student_logits, teacher_logits)
    )
    target = divergence(torch.stack([teacher_true, teacher_others], 1), torch.stack([student_true, student_others], 1))
    others = divergence(teacher_wrong, student_wrong)
    return temperature**2 * (alpha * target + beta * others)


def _decoupled(logits: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities of the true class, of all others together, and of every other class among the others.

    The last tensor has -inf at the true class.
    """
    log = F.log_softmax(logits, 1)
    wrong = log.masked_fill(true, -torch.inf)
    others = wrong.logsumexp(1)
    lowest = torch.finfo(others.dtype).min  # -inf - -inf is NaN
    return log.masked_fill(~true, 0).sum(1), others, wrong - others.clamp(min=lowest).unsqueeze(1)


class DKD(LogitLoss):
    """Decoupled knowledge distillation (https://arxiv.org/abs/2203.08679); see `dkd_loss`.

    The paper weighs this loss by 1, rising over the first 20 of 240 epochs, and cross-entropy by 1. The loss needs the
    true class, so Mixup and CutMix are refused.

    Args:
        alpha: Weight of the term for the true class (TCKD).
        beta: Weight of the term for the other classes (NCKD).
        temperature: Divisor of both logits.

    Raises:
        InputError: If ``temperature`` is not positive or a weight is negative.
    """

    kd_warmup = 20 / 240  # epochs of the authors' runs on CIFAR-100

    accepts_soft_labels = False

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        not_negative(alpha=alpha, beta=beta)
        positive(temperature=temperature)
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature

    def build(self, teacher_logits: Tensor) -> None:
        """Warn that NCKD is 0 for two classes; raise an error if TCKD has weight 0."""
        if teacher_logits.shape[1] > 2 or self.beta == 0:
            return
        reason = f"beta={self.beta} weighs NCKD, which is 0 for two classes as there is one other class"
        if self.alpha == 0:
            raise InputError(f"{reason}, and alpha=0 leaves out the rest: raise alpha, or choose KD")
        warnings.warn(f"{reason}: this is KD times alpha={self.alpha}", stacklevel=2)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return losses, shape ``(N,)``."""
        return dkd_loss(
            student_logits,
            teacher_logits,
            labels,
            alpha=self.alpha,
            beta=self.beta,
            temperature=self.temperature,
        )
