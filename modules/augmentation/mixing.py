"""Mixup and CutMix with random numbers that depend only on a key."""

from __future__ import annotations

import math

import torch.nn.functional as F
from timm.data.mixup import Mixup
from torch import Tensor

from ..core.errors import InputError
from ..core.sampling import Stream, derived_seed, isolated_rng


class Mixing:
    """Mixup and CutMix by timm's `Mixup`: sample i of a batch is mixed with sample N-1-i.

    All pairs of a batch share one ratio, drawn from a Beta distribution. Mixup (https://arxiv.org/abs/1710.09412)
    blends the images; CutMix (https://arxiv.org/abs/1905.04899) swaps a box.

    Args:
        num_classes: Number of classes C.
        mixup: Beta parameter of Mixup; 0 turns it off. 0.2 to 1 is usual.
        cutmix: Beta parameter of CutMix; 0 turns it off. 1 is usual. If both are on, one is drawn for each batch.
        probability: Share of the batches that are mixed.

    Raises:
        InputError: If a Beta parameter is negative or ``probability`` is outside [0, 1].
    """

    def __init__(self, num_classes: int, *, mixup: float = 0.0, cutmix: float = 0.0, probability: float = 1.0) -> None:
        for name, value in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= value < math.inf:
                raise InputError(
                    f"{name} is the parameter of a Beta distribution and must be >= 0, and finite, but is {value}"
                )
        if not 0 <= probability <= 1:
            raise InputError(f"mix_probability must lie in [0, 1] but is {probability}")
        self.num_classes = num_classes
        self._mixup = Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, prob=probability, label_smoothing=0.0)

    def __call__(self, images: Tensor, labels: Tensor, *, key: tuple[int, ...]) -> tuple[Tensor, Tensor, float]:
        """Mix a batch.

        Args:
            images: Shape ``(N, C, H, W)``; not changed.
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.
            key: Non-negative integers that seed the draw, e.g. ``(seed, epoch, batch, rank)``.

        Returns:
            Mixed images, class probabilities ``(N, C)``, and the ratio r: image i is r of sample i and 1 - r of sample
            N-1-i.
        """
        images = images.clone()  # timm mixes in place, and a data module may serve views of its memory
        with isolated_rng(derived_seed(Stream.MIXING, *key)):
            # Not timm's __call__: it rejects batches of odd size, and the last batch may be odd.
            ratio = self._mixup._mix_batch(images)
        probabilities = labels if labels.ndim == 2 else F.one_hot(labels, self.num_classes)
        probabilities = probabilities.to(images.dtype)
        return images, mirror_blend(probabilities, ratio), ratio


def mirror_blend(values: Tensor, ratio: float) -> Tensor:
    """Blend value i with value N-1-i, as `Mixing` blends images; shape ``(N, …)``."""
    return values * ratio + values.flip(0) * (1 - ratio) if ratio < 1 else values
