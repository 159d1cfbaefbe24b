"""Asymmetric temperature scaling: one temperature for the true class and another for the wrong classes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.checks import positive
from ._logits import LogitLoss, full_precision, is_label, same_classes, softened_cross_entropy


def ats_probabilities(teacher_logits: Tensor, labels: Tensor, *, tau_true: float, tau_wrong: float) -> Tensor:
    """Compute the teacher's probabilities with separate temperatures for the true class and the wrong classes.

    ``softmax(z / τ)``, where τ is ``tau_true`` for the true class and ``tau_wrong`` for all others. Unlike with a
    single temperature, adding a constant to the logits z changes the result, so do not center or scale the logits
    first. If the temperatures differ much, a wrong class may get the highest probability: see `recipes temperatures`.

    Args:
        teacher_logits: Logits z, shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        tau_true: Temperature of the true class.
        tau_wrong: Temperature of all other classes.

    Returns:
        Probabilities, shape ``(N, C)``; rows sum to 1.

    Raises:
        ValueError: If ``labels`` is not of shape ``(N,)``.

    Examples:
        >>> ats_probabilities(torch.tensor([[4.0, 2.0]]), torch.tensor([0]), tau_true=4.0, tau_wrong=2.0)
        tensor([[0.5000, 0.5000]])
    """
    (logits,) = full_precision(teacher_logits)
    return torch.where(is_label(logits, labels), logits / tau_true, logits / tau_wrong).softmax(1)


def ats_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    tau_true: float = 4.0,
    tau_wrong: float = 2.0,
    tau_student: float = 1.0,
) -> Tensor:
    """Compute ``-T² Σ_c q_c log p_c`` with the `ats_probabilities` q and the student's softened probabilities p.

    T is ``tau_student`` and ``p = softmax(student_logits / T)``. The loss is T² KL(q ‖ p) plus T² times the entropy of
    q, which has no gradient (https://arxiv.org/abs/2210.04427).

    Args:
        student_logits: Shape ``(N, C)``.
        teacher_logits: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        tau_true: Teacher temperature of the true class. The defaults of both teacher temperatures come from the
            authors' demonstration; their experiments search 1 to 6 and 1 to 5.
        tau_wrong: Teacher temperature of all other classes.
        tau_student: Temperature of the student.

    Returns:
        Losses in nats, shape ``(N,)``.

    Raises:
        ValueError: If the shapes differ or ``labels`` is not of shape ``(N,)``.
    """
    same_classes(student_logits, teacher_logits)
    probabilities = ats_probabilities(teacher_logits, labels, tau_true=tau_true, tau_wrong=tau_wrong)
    return softened_cross_entropy(student_logits, probabilities, tau_student)


class ATS(LogitLoss):
    """Asymmetric temperature scaling (https://arxiv.org/abs/2210.04427); see `ats_loss`.

    The paper weighs this loss by 0.5 and cross-entropy by 0.5. The loss needs the true class, so Mixup and CutMix are
    refused.

    Args:
        tau_true: Teacher temperature of the true class.
        tau_wrong: Teacher temperature of all other classes.
        tau_student: Temperature of the student.

    Raises:
        InputError: If a temperature is not positive.
    """

    ce_weight = kd_weight = 0.5

    accepts_soft_labels = False

    def __init__(self, tau_true: float = 4.0, tau_wrong: float = 2.0, tau_student: float = 1.0) -> None:
        super().__init__()
        positive(tau_true=tau_true, tau_wrong=tau_wrong, tau_student=tau_student)
        self.tau_true = tau_true
        self.tau_wrong = tau_wrong
        self.tau_student = tau_student

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return losses, shape ``(N,)``."""
        return ats_loss(
            student_logits,
            teacher_logits,
            labels,
            tau_true=self.tau_true,
            tau_wrong=self.tau_wrong,
            tau_student=self.tau_student,
        )
