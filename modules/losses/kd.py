"""Knowledge distillation: match the student's softened probabilities with the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..core.checks import positive
from ._logits import LogitLoss, divergence, full_precision, same_classes


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Compute ``T² KL(softmax(t / T) ‖ softmax(s / T))`` (https://arxiv.org/abs/1503.02531).

    t are the teacher's logits and s the student's. The factor T² keeps the gradient's size. As T grows, the loss tends
    to the squared distance of the centered logits divided by 2C. A class with teacher logit -inf adds nothing.

    Args:
        student_logits: Logits s, shape ``(N, C)``.
        teacher_logits: Logits t, shape ``(N, C)``.
        temperature: T. The default is the CIFAR-100 benchmarks' (https://arxiv.org/abs/1910.10699).

    Returns:
        Losses in nats, shape ``(N,)``.

    Raises:
        ValueError: If the shapes differ.

    Examples:
        >>> kd_loss(torch.zeros(1, 2), torch.tensor([[4.0, 0.0]]))
        tensor([1.7751])
    """
    same_classes(student_logits, teacher_logits)
    student, teacher = full_precision(student_logits, teacher_logits)
    student, teacher = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    return temperature**2 * divergence(teacher, student)


class KD(LogitLoss):
    """Knowledge distillation (https://arxiv.org/abs/1503.02531); see `kd_loss`.

    The benchmarks weigh this loss by 0.9 and cross-entropy by 0.1.

    Args:
        temperature: Divisor of both logits.

    Raises:
        InputError: If ``temperature`` is not positive.
    """

    ce_weight = 0.1
    kd_weight = 0.9

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return losses, shape ``(N,)``; the labels are not used."""
        return kd_loss(student_logits, teacher_logits, temperature=self.temperature)
