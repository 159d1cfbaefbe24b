"""ConvNet-D, the network of dataset distillation."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ..core.errors import InputError
from ._blocks import BlockNetwork
from ._registry import register

Norm = Literal["instance", "batch", "layer", "group", "none"]


def convnet(
    num_classes: int = 10,
    in_chans: int = 3,
    *,
    depth: int = 3,
    width: int = 128,
    norm: Norm = "instance",
    image_size: int = 32,
) -> BlockNetwork:
    """Blocks of 3x3 convolution, normalization, ReLU and 2x2 mean pooling, and a linear classifier.

    Paper: https://arxiv.org/abs/2006.05929, the source of the default depth, width and norm. Grey images of 28x28
    pixels are padded to 32x32 by the first convolution, as there. Weights have PyTorch's own initialisation.

    Args:
        num_classes: Size of the output.
        in_chans: Channels of an image.
        depth: Number of blocks; each halves the image. The literature uses 3 for 32x32 pixels and 4 for 64x64.
        width: Channels per block.
        norm: Normalisation: "instance" (per channel of an image, affine), "batch", "layer" (of the whole map),
            "group" (4 groups) or "none".
        image_size: Height and width of an image in pixels.

    Raises:
        InputError: If nothing is left of the image after ``depth`` poolings, ``depth`` is less than 1, ``norm`` is
            unknown or cannot divide ``width``.
    """
    if depth < 1:
        raise InputError(f"depth must be 1 or more but is {depth}")
    blocks: list[nn.Module] = []
    size = image_size
    for index in range(depth):
        padding = 3 if index == 0 and in_chans == 1 and image_size == 28 else 1
        size += 2 * padding - 2
        convolution = nn.Conv2d(in_chans if index == 0 else width, width, 3, padding=padding)
        blocks.append(nn.Sequential(convolution, _norm(norm, width, size), nn.ReLU(), nn.AvgPool2d(2)))
        size //= 2
        if size == 0:
            raise InputError(
                f"depth {depth} leaves nothing of an image of image_size {image_size}: it can be {index} at most"
                if index
                else f"image_size must be 2 or more but is {image_size}"
            )
    return BlockNetwork(nn.Identity(), blocks, num_features=width * size**2, num_classes=num_classes, pool=nn.Flatten())


def _norm(norm: Norm, channels: int, size: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "layer":
        return nn.LayerNorm([channels, size, size])
    if norm == "none":
        return nn.Identity()
    groups = {"instance": channels, "group": 4}
    if norm not in groups:
        raise InputError(f"norm must be instance, batch, layer, group or none but is {norm!r}")
    if channels % groups[norm]:
        raise InputError(f"norm {norm!r} splits width into {groups[norm]} equal parts, which {channels} cannot be")
    return nn.GroupNorm(groups[norm], channels)


register("convnet", convnet)
