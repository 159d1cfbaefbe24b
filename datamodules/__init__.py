"""LightningDataModules."""

from .digits import Digits
from .torchvision_sets import CIFAR10

__all__ = ["CIFAR10", "Digits"]
