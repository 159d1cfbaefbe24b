"""Similarity-preserving distillation: match the similarities between images with the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ._features import FeatureLoss, in_rows, products


def sp_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Compute ``||G_t - G_s||² / N²``; row i of G holds the inner products of image i with all images, at unit length.

    Paper: https://arxiv.org/abs/1907.09682. Image i gets the sum of row i divided by N, so the mean over images is the
    paper's loss. It depends on the batch size.

    Args:
        student_features: Shape ``(N, ...)``.
        teacher_features: Shape ``(N, ...)``; only N must be equal.

    Returns:
        Losses, shape ``(N,)``.
    """
    student, teacher = (_similarities(features) for features in (student_features, teacher_features))
    return (student - teacher).square().mean(1)


def _similarities(features: Tensor) -> Tensor:
    rows = in_rows(features)
    return F.normalize(products(rows, rows.T), dim=1)


class SP(FeatureLoss):
    """Similarity-preserving distillation (https://arxiv.org/abs/1907.09682); see `sp_loss`.

    The benchmarks weigh this loss by 3000 and cross-entropy by 1, with the last feature map. Under DDP each process
    compares the images of its batch.

    Args:
        student_layers: Names of the student's layers, as in ``network.named_modules()``, e.g. ``blocks.8``.
        teacher_layers: Names of the teacher's layers, one for each of the student's.

    Raises:
        InputError: If there are no layers, or the two networks' layers differ in number.
    """

    kd_weight = 3000.0

    needs_maps = False

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Return losses, shape ``(N,)``, summed over layers."""
        return torch.stack(list(map(sp_loss, student_features, teacher_features))).sum(0)
