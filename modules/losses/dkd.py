"""Decoupled knowledge distillation: separate weights for the true class and for the other classes."""

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
    """T² (alpha TCKD + beta NCKD) (https://arxiv.org/abs/2203.08679).

    TCKD is the divergence of (true class, all others), NCKD that among the others; ``kd_loss`` is TCKD plus NCKD times
    the teacher's probability of the others. All is computed in log-space, so that a confident teacher gives no
    infinity. A class to which the teacher gives the logit -inf adds nothing. NCKD is 0 if that is so of all others, and
    for two classes.

    Args:
        student_logits: Shape ``(N, C)``.
        teacher_logits: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        alpha: Weight of TCKD.
        beta: Weight of NCKD. On CIFAR-100 the paper takes 2, 6 or 8 as the pair of networks asks for.
        temperature: T, by which both logits are divided.

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
    """Logarithms of the true class's probability, of all others' together, and of each other's among them.

    The last has -inf for the true class, which is none of them.
    """
    log = F.log_softmax(logits, 1)
    wrong = log.masked_fill(true, -torch.inf)
    others = wrong.logsumexp(1)
    lowest = torch.finfo(others.dtype).min  # -inf - -inf would be no number
    return log.masked_fill(~true, 0).sum(1), others, wrong - others.clamp(min=lowest).unsqueeze(1)


class DKD(LogitLoss):
    """Decoupled knowledge distillation (https://arxiv.org/abs/2203.08679); see `dkd_loss`.

    The paper weighs it by 1, rising over the first 20 of 240 epochs, and cross-entropy by 1. It needs to know the
    true class, so Mixup and CutMix are refused.

    Args:
        alpha: Weight of the term on the true class (TCKD).
        beta: Weight of the term on the other classes (NCKD).
        temperature: Divides both logits.

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
        """Say that for two classes only one of the two terms is left, and refuse to go without that one."""
        if teacher_logits.shape[1] > 2 or self.beta == 0:
            return
        reason = f"beta={self.beta} weighs NCKD, which is 0 for two classes as there is one other class"
        if self.alpha == 0:
            raise InputError(f"{reason}, and alpha=0 leaves out the rest: raise alpha, or choose KD")
        warnings.warn(f"{reason}: this is KD times alpha={self.alpha}", stacklevel=2)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Losses, shape ``(N,)``."""
        return dkd_loss(
            student_logits,
            teacher_logits,
            labels,
            alpha=self.alpha,
            beta=self.beta,
            temperature=self.temperature,
        )
