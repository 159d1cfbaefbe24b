"""FitNet: match a layer of the teacher with a layer of the student and a small regressor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ._features import FeatureLoss
from ._logits import full_precision


def fitnet_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Compute ``mean((s - t)²)`` of two feature maps s and t (https://arxiv.org/abs/1412.6550).

    Args:
        student_features: Map s, shape ``(N, c, h, w)``.
        teacher_features: Map t, of the same shape.

    Returns:
        Losses, shape ``(N,)``.

    Raises:
        ValueError: If the shapes differ.
    """
    if student_features.shape != teacher_features.shape:
        raise ValueError(
            f"teacher_features must have the shape of student_features {tuple(student_features.shape)}"
            f" but got {tuple(teacher_features.shape)}"
        )
    student, teacher = full_precision(student_features, teacher_features)
    return (student - teacher).square().flatten(1).mean(1)


class FitNet(FeatureLoss):
    """FitNet's hints, trained in one stage (https://arxiv.org/abs/1412.6550); see `fitnet_loss`.

    The benchmarks weigh this loss by 100 and cross-entropy by 1, with the second of three stages. The regressor
    (convolution, batch norm and ReLU) is trained with the student and is part of its checkpoints.

    Args:
        student_layers: Names of the student's layers, as in ``network.named_modules()``, e.g. ``blocks.1``.
        teacher_layers: Names of the teacher's layers, one for each of the student's.

    Raises:
        InputError: If the layers differ in number, or the student's feature map is neither the teacher's size, nor
            larger, nor exactly half.
    """

    kd_weight = 100.0

    def __init__(self, student_layers: Sequence[str], teacher_layers: Sequence[str]) -> None:
        super().__init__(student_layers, teacher_layers)
        self.regressors = nn.ModuleList()

    def build(self, student_shapes: Sequence[tuple[int, ...]], teacher_shapes: Sequence[tuple[int, ...]]) -> None:
        """Build a regressor for every pair of layers."""
        super().build(student_shapes, teacher_shapes)
        self.regressors = nn.ModuleList(map(_regressor, student_shapes, teacher_shapes))

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Return losses, shape ``(N,)``, summed over layers."""
        pairs = zip(self.regressors, student_features, teacher_features, strict=True)
        return torch.stack([fitnet_loss(regress(student), teacher) for regress, student, teacher in pairs]).sum(0)


def _regressor(student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Module:
    (inputs, *size), (outputs, *wanted) = student, teacher
    if [2 * side for side in wanted] == size:
        layer: nn.Module = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    elif [2 * side for side in size] == wanted:
        layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    elif all(mine >= theirs for mine, theirs in zip(size, wanted, strict=True)):
        layer = nn.Conv2d(inputs, outputs, [1 + mine - theirs for mine, theirs in zip(size, wanted, strict=True)])  # type: ignore
    else:
        raise InputError(
            f"student_layers give a feature map of {size} pixels and teacher_layers one of {wanted}: name a layer"
            " of the student whose map is as large, or larger, or half as large"
        )
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())
