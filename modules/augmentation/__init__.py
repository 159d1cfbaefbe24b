"""Augmentation of whole batches: crops and flips, Mixup and CutMix, and the siamese augmentation of DSA."""

from .mixing import Mixing
from .siamese import SiameseAugmentation

__all__ = ["Mixing", "SiameseAugmentation"]
