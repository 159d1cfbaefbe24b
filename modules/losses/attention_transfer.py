"""Attention transfer: student and teacher look at the same places of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import InputError
from ._features import FeatureLoss
from ._logits import full_precision


def attention_maps(features: Tensor, *, power: float = 4.0) -> Tensor:
    """Sum over channels of the features' absolute values to a power, at unit length.

    Args:
        features: Shape ``(N, c, h, w)``.
        power: Exponent; the larger, the more the strongest channels count.

    Returns:
        Shape ``(N, h * w)``, each row of Euclidean length 1.
    """
    (features,) = full_precision(features)
    # The largest value is divided out, as powers of large features overflow in float32. Passes over the features are
    # what this costs, so the usual powers take few: a norm over channels is one.
    if power == 1:
        sums = torch.linalg.vector_norm(features, 1, dim=1).flatten(1)
        # Sums do not overflow, but their squares would. They are small, so their largest value costs little.
        largest = sums.detach().amax(1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny ** 0.5)
        return F.normalize(sums / largest, dim=1)
    values = features.detach()
    scale = torch.maximum(values.amax((1, 2, 3), keepdim=True), -values.amin((1, 2, 3), keepdim=True))
    scale = scale.clamp(min=torch.finfo(features.dtype).tiny ** 0.5)  # whose square is not 0
    if power == 4:
        sums = torch.linalg.vector_norm(features.square() / scale.square(), dim=1).square()
    elif power == 2:
        sums = torch.linalg.vector_norm(features / scale, dim=1).square()
    else:
        sums = (features / scale).abs().pow(power).sum(1)
    return F.normalize(sums.flatten(1), dim=1)


def attention_transfer_loss(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the attention maps (power 2), summed over layers (https://arxiv.org/abs/1612.03928).

    Args:
        student_features: One tensor ``(N, c, h, w)`` per layer.
        teacher_features: One tensor per layer; the larger of two maps is averaged to the size of the smaller, the
            channels may differ.

    Returns:
        Losses, shape ``(N,)``.
    """
    losses = []
    for student, teacher in zip(student_features, teacher_features, strict=True):
        size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
        maps = [attention_maps(F.adaptive_avg_pool2d(f, size), power=2.0) for f in (student, teacher)]
        losses.append((maps[0] - maps[1]).square().mean(1))
    return torch.stack(losses).sum(0)


class AttentionTransfer(FeatureLoss):
    """Attention transfer (https://arxiv.org/abs/1612.03928); see `attention_transfer_loss`.

    The benchmarks use weight 1000, and 1 for cross-entropy, with the last layer of each of three stages.

    Args:
        student_layers: Names of the student's layers, as in ``network.named_modules()``, e.g. ``blocks.2``.
        teacher_layers: Names of the teacher's layers, one for each of the student's.

    Raises:
        InputError: If there are no layers, or not as many of one network as of the other, or a map is a single pixel.
    """

    kd_weight = 1000.0

    def build(self, student_shapes: Sequence[tuple[int, ...]], teacher_shapes: Sequence[tuple[int, ...]]) -> None:
        """Check that there is something to look at."""
        super().build(student_shapes, teacher_shapes)
        for name, student, teacher in zip(self.student_layers, student_shapes, teacher_shapes, strict=True):
            if min(student[1] * student[2], teacher[1] * teacher[2]) == 1:
                raise InputError(
                    f"student_layers: the maps of {name} and its teacher's layer have one pixel in common, whose"
                    " attention is always 1: name layers before it"
                )

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Losses, shape ``(N,)``."""
        return attention_transfer_loss(student_features, teacher_features)
