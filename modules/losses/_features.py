"""Shared code of the losses on features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ._logits import full_precision


class FeatureLoss(nn.Module):
    """Base of the losses between outputs of layers of a student and of a teacher.

    Called with a list of features of each, maps ``(N, c, h, w)`` or vectors ``(N, d)``; gives losses ``(N,)``. Tokens
    of a vision transformer come as maps, without class and register tokens. Teacher and student may know different
    classes.

    Args:
        student_layers: Names of the student's layers, as in ``network.named_modules()``, e.g. ``blocks.2``.
            ``NAME:input`` is the layer's input instead of its output.
        teacher_layers: Names of the teacher's layers, one for each of the student's.

    Raises:
        InputError: If there are no layers, or not as many of one network as of the other.
    """

    accepts_soft_labels: bool = True

    repeats_steps: bool = True
    """Whether the loss of a batch can be computed twice. False is for losses that remember what they saw."""

    needs_maps: bool = True
    """Whether layers must give maps, and not vectors such as pooled features."""

    ce_weight: float = 1.0
    """Weight of the cross-entropy beside this loss in `Distillation`, by default."""
    kd_weight: float = 1.0
    """Weight of this loss in `Distillation`, by default."""
    kd_warmup: int | float = 0
    """Beginning of a run over which the weight rises, by default: a share (float) or epochs (int)."""

    def __init__(self, student_layers: Sequence[str], teacher_layers: Sequence[str]) -> None:
        super().__init__()
        if not student_layers or len(student_layers) != len(teacher_layers):
            raise InputError(
                f"student_layers {list(student_layers)} and teacher_layers {list(teacher_layers)} must name the same"
                " number of layers, at least one"
            )
        self.student_layers = tuple(student_layers)
        self.teacher_layers = tuple(teacher_layers)

    def build(self, student_shapes: Sequence[tuple[int, ...]], teacher_shapes: Sequence[tuple[int, ...]]) -> None:
        """Check that the layers' outputs fit, and build the parts that are trained with the student.

        Args:
            student_shapes: ``(c, h, w)`` or ``(d,)`` of each of the student's layers.
            teacher_shapes: ``(c, h, w)`` or ``(d,)`` of each of the teacher's layers.

        Raises:
            InputError: If they do not go together.
        """
        for name, shape in zip(
            [*self.student_layers, *self.teacher_layers], [*student_shapes, *teacher_shapes], strict=True
        ):
            if len(shape) != 3 and (self.needs_maps or len(shape) != 1):
                raise InputError(
                    f"layer {name} gives {('N', *shape)}, no feature map (N, c, h, w): name another in student_layers"
                    " or teacher_layers"
                )

    def begin(self, labels: Tensor, indices: Tensor | None, class_counts: Sequence[int] | None) -> None:
        """Get to know a batch before its features are given; nothing by default.

        Args:
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.
            indices: Index per sample in the training set, shape ``(N,)``; None where it is not known.
            class_counts: Training samples per class, where the data knows them.

        Raises:
            InputError: If the loss needs more than the batch says.
        """

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Losses, shape ``(N,)``."""
        raise NotImplementedError


def in_rows(features: Tensor) -> Tensor:
    """Features of each image in one row, ``(N, d)``, in float32 at least."""
    return full_precision(features.flatten(1))[0]


def products(one: Tensor, other: Tensor) -> Tensor:
    """``one @ other`` in the precision of its factors, also under autocast, as its rounding would dominate the loss."""
    with torch.autocast(one.device.type, enabled=False):
        return one @ other
