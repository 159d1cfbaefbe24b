"""DataDAM: match attention maps of the middle layers and class means of the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.checks import not_negative, positive
from ..core.errors import InputError
from ..core.feature_capture import FeatureCapture
from ._class_means import ClassSums, mean_distance
from ._features import FeatureMatching, middle_layers

PRESETS = {"paper": 4.0, "released_code": 1.0}
"""Exponent of the attention maps in the paper's table of settings and in the authors' code."""


class DataDAM(FeatureMatching):
    """Dataset distillation with attention matching (https://arxiv.org/abs/2310.00093).

    The loss is ``scale * (attention + mmd_weight * mmd)``, where attention is `attention_matching_loss` over the layers
    and mmd is `distribution_matching_loss` on the embedding.

    Args:
        preset: Source of the default ``power``: "paper" (4) or "released_code" (1). With 1 attention has little effect.
            The two also differ in the network's norm and the numbers of real images and steps, which are options of the
            recipe.
        power: Exponent of the attention maps; None uses the preset's.
        mmd_weight: Weight of the embedding's term, the paper's task balance: 0.01 for 32x32 and 64x64 pixels, 0.02
            for larger images. 0 leaves it out.
        layers: Names of the layers whose attention is matched, as in ``network.named_modules()``. None is every
            ``nn.ReLU`` except the last, as published, or every block except the last if there are no ReLU modules.
        scale: Factor of the whole loss (100, as in the authors' code); the learning rate of the images depends on it.
        chunk_size: Number of images per forward pass; synthetic images are split between classes only. None is 2^14
            pixels (16 images of 32x32) on a CPU, where features then stay in the cache, and 2^20 pixels elsewhere. It
            changes only time and memory. With batch norm all images pass together, because its statistics depend on all
            of them.

    Raises:
        InputError: If an argument is out of its range, or the network has no such layers.
    """

    def __init__(
        self,
        preset: Literal["paper", "released_code"] = "paper",
        power: float | None = None,
        *,
        mmd_weight: float = 0.01,
        layers: Sequence[str] | None = None,
        scale: float = 100.0,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__(chunk_size=chunk_size)
        if preset not in PRESETS:
            raise InputError(f"preset must be paper or released_code but is {preset!r}")
        positive(power=power, scale=scale)
        not_negative(mmd_weight=mmd_weight)
        if layers is not None and (isinstance(layers, str) or not layers):
            raise InputError(
                f"layers must be a list of one name or more but is {layers!r}: leave it out for the default"
            )
        self.power = PRESETS[preset] if power is None else power
        self.mmd_weight = mmd_weight
        self.layers = layers
        self.scale = scale

    def attach(self, network: nn.Module, *, images_per_class: int) -> None:
        """See `Matching.attach`."""
        super().attach(network, images_per_class=images_per_class)
        self._capture = FeatureCapture(network, middle_layers(network) if self.layers is None else self.layers)

    def distances(self, real: Sequence[ClassSums], synthetic: Sequence[ClassSums]) -> dict[str, Tensor]:
        """See `FeatureMatching.distances`."""
        distances = [mean_distance(*pair) for pair in zip(real, synthetic, strict=True)]
        attention = self.scale * torch.stack(distances[:-1]).sum()
        return {"attention": attention, "mmd": self.scale * self.mmd_weight * distances[-1]}
