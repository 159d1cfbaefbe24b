"""Spatial attention matching: real and synthetic images of a class are looked at in the same places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses.attention_transfer import attention_maps
from ._class_means import class_sums, mean_distance


def attention_matching_loss(
    real_features: Sequence[Tensor],
    synthetic_features: Sequence[Tensor],
    real_labels: Tensor,
    synthetic_labels: Tensor,
    *,
    num_classes: int,
    power: float = 4.0,
) -> Tensor:
    """Squared distance between the mean attention maps of real and synthetic images (https://arxiv.org/abs/2310.00093).

    The map of each image is brought to unit length first, and then averaged over its class; squares are summed over
    pixels, layers and classes.

    Args:
        real_features: One tensor ``(N, c, h, w)`` per layer.
        synthetic_features: One tensor ``(M, c, h, w)`` per layer, the same layers.
        real_labels: Class indices, shape ``(N,)``.
        synthetic_labels: Class indices, shape ``(M,)``.
        num_classes: Number of classes. One that real or synthetic images lack counts 0.
        power: Exponent of the attention maps. 4 is the paper's; the released code uses 1.

    Returns:
        A scalar.
    """
    losses = []
    for real, synthetic in zip(real_features, synthetic_features, strict=True):
        losses.append(
            mean_distance(
                class_sums(attention_maps(real, power=power), real_labels, num_classes),
                class_sums(attention_maps(synthetic, power=power), synthetic_labels, num_classes),
            )
        )
    return torch.stack(losses).sum()
