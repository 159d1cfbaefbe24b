"""ConvNet-D, the network used in dataset distillation."""

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
    """Build blocks of 3x3 convolution, norm, ReLU and 2x2 mean pooling, followed by a linear layer.

    Paper: https://arxiv.org/abs/2006.05929; depth, width and norm default to its values. As in its code, the first
    convolution pads gray images of 28x28 pixels to 32x32. Weights have PyTorch's default initialization.

    Args:
        num_classes: Number of logits.
        in_chans: Number of image channels.
        depth: Number of blocks; each halves the image. The literature uses 3 for 32x32 pixels and 4 for 64x64.
        width: Channels per block.
        norm: Norm layer: "instance" (per channel and image, affine), "batch", "layer" (over the whole map), "group"
            (4 groups) or "none".
        image_size: Height and width of an image in pixels.

    Raises:
        InputError: If the image is too small for ``depth`` poolings, ``depth`` is less than 1, ``norm`` is unknown or
            cannot divide ``width``.
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
