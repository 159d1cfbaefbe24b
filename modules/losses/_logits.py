"""Shared code of the losses on logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .soft_cross_entropy import soft_cross_entropy


class LogitLoss(nn.Module):
    """Base of the losses between a student's and a teacher's logits.

    Called with the student's logits ``(N, C)``, the teacher's ``(N, C)`` and labels; gives losses ``(N,)``.
    """

    accepts_soft_labels: bool = True
    """Whether labels may be class probabilities ``(N, C)``, which Mixup and CutMix make of them."""

    ce_weight: float = 1.0
    """Weight of the cross-entropy beside this loss in `Distillation`, by default."""
    kd_weight: float = 1.0
    """Weight of this loss in `Distillation`, by default."""
    kd_warmup: int | float = 0
    """Beginning of a run over which the weight rises, by default: a share (float) or epochs (int)."""

    def build(self, teacher_logits: Tensor) -> None:
        """Refuse a teacher or a number of classes that this loss cannot learn from; nothing by default.

        Args:
            teacher_logits: The teacher's answer to blank images, shape ``(N, C)``.

        Raises:
            InputError: If the loss has no gradient, or is not a number, for such logits.
        """

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Losses, shape ``(N,)``."""
        raise NotImplementedError


def full_precision(*logits: Tensor) -> list[Tensor]:
    """Logits in float32, or float64 if they are: exponentials of half precision would decide the loss."""
    return [value.float() if value.dtype in (torch.float16, torch.bfloat16) else value for value in logits]


def is_label(logits: Tensor, labels: Tensor) -> Tensor:
    """A mask ``(N, C)`` that is true at each sample's label.

    Raises:
        ValueError: If ``labels`` is not of shape ``(N,)``.
    """
    if labels.ndim != 1:
        raise ValueError(f"labels must be class indices (N,) but have shape {tuple(labels.shape)}")
    return labels.unsqueeze(1) == torch.arange(logits.shape[1], device=logits.device)


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher ‖ student) of logarithms of probabilities ``(N, C)``, shape ``(N,)``.

    A class that the teacher rules out (probability 0, logarithm -inf) adds nothing, whatever the student says of it.
    """
    ruled_out = teacher.isneginf()
    difference = teacher.masked_fill(ruled_out, 0) - student.masked_fill(ruled_out, 0)
    return (teacher.exp() * difference).sum(1)


def same_classes(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Refuse logits of different shapes, which would be broadcast into a wrong loss.

    Raises:
        ValueError: If the shapes differ.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"teacher_logits must have the shape of student_logits {tuple(student_logits.shape)}"
            f" but got {tuple(teacher_logits.shape)}"
        )


def softened_cross_entropy(student_logits: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the student at a temperature against probabilities, times the temperature's square, ``(N,)``."""
    (student,) = full_precision(student_logits)
    # A class that both rule out (probability 0, logit -inf) adds nothing, and 0 times infinity would be no number.
    student = (student / temperature).clamp(min=torch.finfo(student.dtype).min)
    return temperature**2 * soft_cross_entropy(student, probabilities)
