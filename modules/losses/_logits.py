"""Base class of the losses on logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .soft_cross_entropy import soft_cross_entropy


class LogitLoss(nn.Module):
    """Base class of losses between a student's and a teacher's logits.

    A loss is called with the student's logits ``(N, C)``, the teacher's logits ``(N, C)`` and labels. It returns losses
    ``(N,)``.
    """

    accepts_soft_labels: bool = True
    """True if labels may be class probabilities ``(N, C)``, as from Mixup and CutMix."""

    ce_weight: float = 1.0
    """Default weight of the cross-entropy when `Distillation` uses this loss."""
    kd_weight: float = 1.0
    """Default weight of this loss in `Distillation`."""
    kd_warmup: int | float = 0
    """Default warm-up of this loss's weight: a share of the run (float) or epochs (int)."""

    def build(self, teacher_logits: Tensor) -> None:
        """Raise an error if this loss cannot learn from the teacher or its number of classes; does nothing by default.

        Args:
            teacher_logits: The teacher's logits for blank images, shape ``(N, C)``.

        Raises:
            InputError: If the loss has no gradient, or is NaN, for such logits.
        """

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return losses, shape ``(N,)``."""
        raise NotImplementedError


def full_precision(*logits: Tensor) -> list[Tensor]:
    """Convert half-precision logits to float32, because exponentials in half precision are too coarse."""
    return [value.float() if value.dtype in (torch.float16, torch.bfloat16) else value for value in logits]


def is_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return a mask ``(N, C)`` that is True at the label of each sample.

    Raises:
        ValueError: If ``labels`` is not of shape ``(N,)``.
    """
    if labels.ndim != 1:
        raise ValueError(f"labels must be class indices (N,) but have shape {tuple(labels.shape)}")
    return labels.unsqueeze(1) == torch.arange(logits.shape[1], device=logits.device)


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Compute KL(teacher ‖ student) from log-probabilities ``(N, C)``, shape ``(N,)``.

    A class to which the teacher gives probability 0 (logarithm -inf) adds nothing, whatever the student's probability.
    """
    ruled_out = teacher.isneginf()
    difference = teacher.masked_fill(ruled_out, 0) - student.masked_fill(ruled_out, 0)
    return (teacher.exp() * difference).sum(1)


def same_classes(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Raise an error for logits of different shapes; broadcasting would give a wrong loss.

    Raises:
        ValueError: If the shapes differ.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"teacher_logits must have the shape of student_logits {tuple(student_logits.shape)}"
            f" but got {tuple(teacher_logits.shape)}"
        )


def softened_cross_entropy(student_logits: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """Compute T² times the cross-entropy of the student's softened logits against probabilities, shape ``(N,)``."""
    (student,) = full_precision(student_logits)
    # If both rule out a class (probability 0, logit -inf), it adds nothing; without the clamp, 0 · inf is NaN.
    student = (student / temperature).clamp(min=torch.finfo(student.dtype).min)
    return temperature**2 * soft_cross_entropy(student, probabilities)
