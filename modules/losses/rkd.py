"""Relational knowledge distillation: match distances and angles between images with the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.checks import not_negative
from ..core.errors import InputError
from ._features import FeatureLoss, in_rows, products


def rkd_loss(
    student_features: Tensor, teacher_features: Tensor, *, distance_weight: float = 25.0, angle_weight: float = 50.0
) -> Tensor:
    """Compute the Huber losses of distances between images, and of angles at an image between two others.

    The loss of image i is ``distance_weight`` mean_j h(d_ij) + ``angle_weight`` mean_jk h(cos_ijk). h is the Huber loss
    of the difference between student and teacher. d_ij is a distance divided by the mean distance of the batch, and
    cos_ijk the cosine of the angle at i between j and k. Paper: https://arxiv.org/abs/1904.05068. The mean over images
    is the benchmarks' loss. It depends on the batch size and is 0 for one image.

    Args:
        student_features: Shape ``(N, ...)``. Temporary tensors have shapes ``(N, N, d)`` and ``(N, N, N)``.
        teacher_features: Shape ``(N, ...)``; only N must be equal.
        distance_weight: Weight of the distances. The defaults of both weights are the benchmarks'
            (https://arxiv.org/abs/1910.10699).
        angle_weight: Weight of the angles.

    Returns:
        Losses, shape ``(N,)``.
    """
    student, teacher = in_rows(student_features), in_rows(teacher_features)
    distances = F.smooth_l1_loss(_distances(student), _distances(teacher), reduction="none").mean(1)
    angles = F.smooth_l1_loss(_angles(student), _angles(teacher), reduction="none").mean((1, 2))
    return distance_weight * distances + angle_weight * angles


def _distances(rows: Tensor) -> Tensor:
    """Return distances ``(N, N)`` divided by their mean over pairs."""
    squares = rows.square().sum(1)
    squared = squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * products(rows, rows.T)
    same = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    # The clamp keeps the gradient finite if two images have the same features.
    distances = squared.clamp(min=1e-12).sqrt().masked_fill(same, 0)
    return distances / (distances.sum() / max(1, len(rows) * (len(rows) - 1))).clamp(min=1e-12)


def _angles(rows: Tensor) -> Tensor:
    """Return cosines ``(N, N, N)`` at image i between the directions to j and to k; 0 if two features are equal."""
    directions = F.normalize(rows.unsqueeze(0) - rows.unsqueeze(1), dim=2)
    return products(directions, directions.transpose(1, 2))


class RKD(FeatureLoss):
    """Relational knowledge distillation (https://arxiv.org/abs/1904.05068); see `rkd_loss`.

    The benchmarks weigh this loss by 1 and cross-entropy by 1, with the pooled features. Under DDP each process
    compares the images of its batch.

    Args:
        student_layers: Name of the student's layer, as in ``network.named_modules()``: ``[pool]`` for our networks,
            ``[global_pool]`` for timm's ResNets.
        teacher_layers: Name of the teacher's layer.
        distance_weight: Weight of the distances.
        angle_weight: Weight of the angles.

    Raises:
        InputError: If there are no layers, the two networks' layers differ in number, a weight is negative or both are
            0.
    """

    needs_maps = False

    def __init__(
        self,
        student_layers: Sequence[str],
        teacher_layers: Sequence[str],
        *,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        not_negative(distance_weight=distance_weight, angle_weight=angle_weight)
        if distance_weight == angle_weight == 0:
            raise InputError("distance_weight and angle_weight are both 0, which leaves nothing to learn: raise one")
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Return losses, shape ``(N,)``, summed over layers."""
        weights = {"distance_weight": self.distance_weight, "angle_weight": self.angle_weight}
        pairs = zip(student_features, teacher_features, strict=True)
        return torch.stack([rkd_loss(student, teacher, **weights) for student, teacher in pairs]).sum(0)
