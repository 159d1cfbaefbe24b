"""AlexNet and VGG-11 for small images, with which the literature asks whether a distilled set serves other networks."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ..core.errors import InputError
from ._blocks import BlockNetwork, image_norm
from ._registry import register

Norm = Literal["instance", "batch"]


def cifar_alexnet(num_classes: int = 10, in_chans: int = 3, *, image_size: int = 32) -> BlockNetwork:
    """Five convolutions, three max-poolings and a linear classifier, without norm or dropout.

    The form in which https://arxiv.org/abs/2006.05929 evaluates distilled sets. Grey images of 28x28 pixels are padded
    to 32x32 by the first convolution, as there. Weights have PyTorch's own initialisation.

    Args:
        num_classes: Size of the output.
        in_chans: Channels of an image.
        image_size: Height and width of an image in pixels.

    Raises:
        InputError: If the poolings leave nothing of an image of ``image_size``.
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
    """VGG of eight convolutions (https://arxiv.org/abs/1409.1556) with norms and one linear layer on pooled features.

    The form in which https://arxiv.org/abs/2006.05929 evaluates distilled sets. Of its five max-poolings those are left
    out that would leave a single pixel to a norm, which a small image needs. Grey images of 28x28 pixels are padded to
    32x32 by the first convolution, as there. Weights have PyTorch's own initialisation.

    Args:
        num_classes: Size of the output.
        in_chans: Channels of an image.
        norm: Normalisation: "instance" (per channel of an image, affine) or "batch".
        image_size: Height and width of an image in pixels.

    Raises:
        InputError: If ``norm`` is unknown or ``image_size`` less than 2.
    """
    padding = 3 if in_chans == 1 and image_size == 28 else 1
    size = image_size + 2 * padding - 2
    if size < 2:
        raise InputError(f"image_size must be 2 or more but is {image_size}")
    blocks, inputs = [], in_chans
    # Width, and the least size that a pooling behind it may leave; 0 is without one.
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
