"""LightningDataModules for images."""

from .cifar10_c import CIFAR10C
from .digits import Digits
from .distilled_images import DistilledImages
from .image_folder import ImageFolder
from .torchvision_sets import CIFAR10, CIFAR100, MNIST, STL10, SVHN, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR10C",
    "CIFAR100",
    "MNIST",
    "STL10",
    "SVHN",
    "Digits",
    "DistilledImages",
    "FashionMNIST",
    "ImageFolder",
]
