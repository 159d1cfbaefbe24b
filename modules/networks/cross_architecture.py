"""AlexNet and VGG-11 for small images, used to evaluate distilled sets on other architectures."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ..core.errors import InputError
from ._blocks import BlockNetwork, image_norm
from ._registry import register

Norm = Literal["instance", "batch"]


def cifar_alexnet(num_classes: int = 10, in_chans: int = 3, *, image_size: int = 32) -> BlockNetwork:
    """Build an AlexNet: five convolutions, three max-poolings and a linear layer, without norm or dropout.

    This is the form that https://arxiv.org/abs/2006.05929 uses to evaluate distilled sets. As in its code, the first
    convolution pads gray images of 28x28 pixels to 32x32. Weights have PyTorch's default initialization.

    Args:
        num_classes: Number of logits.
        in_chans: Number of image channels.
        image_size: Height and width of an image in pixels.

    Raises:
        InputError: If ``image_size`` is too small for the poolings.
    """
    if image_size < 8:
        raise InputError(
            f"image_size {image_size} is too small for the three poolings of AlexNet: it must be 8 or more"
        )
    padding = 4 if in_chans == 1 and image_size == 28 else 2
    blocks, inputs = [], in_chans
    for width, kernel, pooled in ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True)):
        layers = [nn.Conv2d(inputs, width, kernel, padding=kernel // 2 if blocks else padding), nn.ReLU()]
        blocks.append(nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pooled else [])))
        inputs = width
    left = (image_size + 2 * padding - 4) // 8
    return BlockNetwork(
        nn.Identity(), blocks, num_features=inputs * left**2, num_classes=num_classes, pool=nn.Flatten()
    )


def cifar_vgg11(
    num_classes: int = 10, in_chans: int = 3, *, norm: Norm = "instance", image_size: int = 32
) -> BlockNetwork:
    """Build a VGG-11 (https://arxiv.org/abs/1409.1556) with norms and one linear layer on pooled features.

    This is the form that https://arxiv.org/abs/2006.05929 uses to evaluate distilled sets. It has eight convolutions
    and up to five max-poolings; for small images, a pooling is left out if a later norm would get a single pixel. As in
    the paper's code, the first convolution pads gray images of 28x28 pixels to 32x32. Weights have PyTorch's default
    initialization.

    Args:
        num_classes: Number of logits.
        in_chans: Number of image channels.
        norm: Norm layer: "instance" (per channel and image, affine) or "batch".
        image_size: Height and width of an image in pixels.

    Raises:
        InputError: If ``norm`` is unknown or ``image_size`` less than 2.
    """
    padding = 3 if in_chans == 1 and image_size == 28 else 1
    size = image_size + 2 * padding - 2
    if size < 2:
        raise InputError(f"image_size must be 2 or more but is {image_size}")
    blocks, inputs = [], in_chans
    # Width, and the smallest map size that the pooling after it may leave; 0 is no pooling.
    for width, least in (64, 2), (128, 2), (256, 0), (256, 2), (512, 0), (512, 2), (512, 0), (512, 1):
        convolution = nn.Conv2d(inputs, width, 3, padding=1 if blocks else padding)
        layers = [convolution, image_norm(norm)(width), nn.ReLU()]
        if least and size // 2 >= least:
            layers.append(nn.MaxPool2d(2))
            size //= 2
        blocks.append(nn.Sequential(*layers))
        inputs = width
    return BlockNetwork(nn.Identity(), blocks, num_features=inputs, num_classes=num_classes)


register("cifar_alexnet", cifar_alexnet)
register("cifar_vgg11", cifar_vgg11)
