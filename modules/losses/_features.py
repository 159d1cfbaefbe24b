"""Base class of the losses on features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ._logits import full_precision


class FeatureLoss(nn.Module):
    """Base class of losses between layer outputs of a student and a teacher.

    A loss is called with a list of student features and a list of teacher features, maps ``(N, c, h, w)`` or vectors
    ``(N, d)``, and returns losses ``(N,)``. Tokens of a vision transformer come as maps, without class and register
    tokens. Teacher and student may have different classes.

    Args:
        student_layers: Names of the student's layers, as in ``network.named_modules()``, e.g. ``blocks.2``.
            ``NAME:input`` is the layer's input instead of its output.
        teacher_layers: Names of the teacher's layers, one for each of the student's.

    Raises:
        InputError: If there are no layers, or the two networks' layers differ in number.
    """

    accepts_soft_labels: bool = True

    repeats_steps: bool = True
    """False if the loss keeps a state between batches, so that a step must not be computed twice."""

    needs_maps: bool = True
    """True if layers must give maps; vectors such as pooled features are then refused."""

    ce_weight: float = 1.0
    """Default weight of the cross-entropy when `Distillation` uses this loss."""
    kd_weight: float = 1.0
    """Default weight of this loss in `Distillation`."""
    kd_warmup: int | float = 0
    """Default warm-up of this loss's weight: a share of the run (float) or epochs (int)."""

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
        """Check that the layers' outputs match, and build layers that are trained with the student.

        Args:
            student_shapes: Output shapes of the student's layers, ``(c, h, w)`` or ``(d,)``.
            teacher_shapes: Output shapes of the teacher's layers, ``(c, h, w)`` or ``(d,)``.

        Raises:
            InputError: If they do not match.
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
        """Receive the labels and indices of a batch before its features; does nothing by default.

        Args:
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.
            indices: Indices of the samples in the training set, shape ``(N,)``; None if unknown.
            class_counts: Number of training samples per class; None if unknown.

        Raises:
            InputError: If the loss needs an argument that is unknown.
        """

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Return losses, shape ``(N,)``."""
        raise NotImplementedError


def in_rows(features: Tensor) -> Tensor:
    """Flatten the features of each image to a row, ``(N, d)``, in at least float32."""
    return full_precision(features.flatten(1))[0]


def products(one: Tensor, other: Tensor) -> Tensor:
    """Compute ``one @ other`` without autocast, because half precision would be too coarse for the loss."""
    with torch.autocast(one.device.type, enabled=False):
        return one @ other
