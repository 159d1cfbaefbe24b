"""Attention transfer: match the spatial attention maps of student and teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import InputError
from ._features import FeatureLoss
from ._logits import full_precision


def attention_maps(features: Tensor, *, power: float = 4.0) -> Tensor:
    """Compute attention maps ``Σ_c |f_c|^power``, scaled to Euclidean length 1.

    Args:
        features: Features f, shape ``(N, c, h, w)``.
        power: Exponent; larger values give the strongest channels more weight.

    Returns:
        Shape ``(N, h * w)``, each row of Euclidean length 1.
    """
    (features,) = full_precision(features)
    # Divide by the largest value, because powers of large features overflow in float32. The cost is the number of
    # passes over the features, so the usual powers use few: a norm over channels is one pass.
    if power == 1:
        sums = torch.linalg.vector_norm(features, 1, dim=1).flatten(1)
        # The sums do not overflow, but their squares would. Their largest value is cheap, because they are small.
        largest = sums.detach().amax(1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny ** 0.5)
        return F.normalize(sums / largest, dim=1)
    values = features.detach()
    scale = torch.maximum(values.amax((1, 2, 3), keepdim=True), -values.amin((1, 2, 3), keepdim=True))
    scale = scale.clamp(min=torch.finfo(features.dtype).tiny ** 0.5)  # its square is above 0
    if power == 4:
        sums = torch.linalg.vector_norm(features.square() / scale.square(), dim=1).square()
    elif power == 2:
        sums = torch.linalg.vector_norm(features / scale, dim=1).square()
    else:
        sums = (features / scale).abs().pow(power).sum(1)
    return F.normalize(sums.flatten(1), dim=1)


def attention_transfer_loss(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Compute ``Σ_l mean((A(s_l) - A(t_l))²)`` over layers l (https://arxiv.org/abs/1612.03928).

    A are the `attention_maps` with power 2, s_l the student's features and t_l the teacher's.

    Args:
        student_features: One tensor ``(N, c, h, w)`` per layer.
        teacher_features: One tensor per layer. The larger of two maps is averaged to the size of the smaller one.
            Channels may differ.

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

    The benchmarks weigh this loss by 1000 and cross-entropy by 1, with the last layer of all three stages.

    Args:
        student_layers: Names of the student's layers, as in ``network.named_modules()``, e.g. ``blocks.2``.
        teacher_layers: Names of the teacher's layers, one for each of the student's.

    Raises:
        InputError: If there are no layers, the two networks' layers differ in number, or a map is a single pixel.
    """

    kd_weight = 1000.0

    def build(self, student_shapes: Sequence[tuple[int, ...]], teacher_shapes: Sequence[tuple[int, ...]]) -> None:
        """Check that every pair of maps has more than one pixel."""
        super().build(student_shapes, teacher_shapes)
        for name, student, teacher in zip(self.student_layers, student_shapes, teacher_shapes, strict=True):
            if min(student[1] * student[2], teacher[1] * teacher[2]) == 1:
                raise InputError(
                    f"student_layers: the maps of {name} and its teacher's layer have one pixel in common, whose"
                    " attention is always 1: name layers before it"
                )

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Return losses, shape ``(N,)``."""
        return attention_transfer_loss(student_features, teacher_features)
