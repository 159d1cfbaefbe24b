"""Spatial attention matching: match the mean attention maps of real and synthetic images."""

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
    """Compute ``Σ_{c,l} ||mean A_l(real_c) - mean A_l(syn_c)||²`` (https://arxiv.org/abs/2310.00093).

    A_l are the `attention_maps` of layer l, each scaled to unit length. The means are over the images of class c.

    Args:
        real_features: One tensor ``(N, c, h, w)`` per layer.
        synthetic_features: One tensor ``(M, c, h, w)`` per layer, for the same layers.
        real_labels: Class indices, shape ``(N,)``.
        synthetic_labels: Class indices, shape ``(M,)``.
        num_classes: Number of classes. A class without real or without synthetic images adds 0.
        power: Exponent of the attention maps. The paper uses 4, the released code 1.

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
