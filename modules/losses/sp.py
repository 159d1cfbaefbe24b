"""Similarity-preserving distillation: images that are alike for the teacher are alike for the student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ._features import FeatureLoss, in_rows, products


def sp_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Compute ||G_t - G_s||² / N², where row i of G holds the products of image i with all images, at unit length.

    Paper: https://arxiv.org/abs/1907.09682. Image i gets row i of the sum, times N, so that the mean over images is the
    paper's loss. It depends on the batch size.

    Args:
        student_features: Shape ``(N, ...)``.
        teacher_features: Shape ``(N, ...)``; all but N may differ.

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

    The benchmarks weigh it by 3000 and cross-entropy by 1, with the last feature map. Under DDP each process compares
    the images in its batch.

    Args:
        student_layers: Names of the student's layers, as in ``network.named_modules()``, e.g. ``blocks.8``.
        teacher_layers: Names of the teacher's layers, one for each of the student's.

    Raises:
        InputError: If there are no layers, or not as many of one network as of the other.
    """

    kd_weight = 3000.0

    needs_maps = False

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Losses, shape ``(N,)``, summed over layers."""
        return torch.stack(list(map(sp_loss, student_features, teacher_features))).sum(0)
