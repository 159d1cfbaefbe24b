"""ResNets, wide ResNets and VGGs for images of 32x32 pixels, as used in the distillation literature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

from timm.models.resnet import BasicBlock as TimmBasicBlock
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from ..core.errors import InputError
from ._blocks import BlockNetwork, conv3x3, he_initialization, image_norm, residual_stages
from ._registry import register


def cifar_resnet(
    depth: int, *, widths: Sequence[int] = (16, 16, 32, 64), num_classes: int = 10, in_chans: int = 3
) -> BlockNetwork:
    """Build a ResNet with 6n + 2 layers (https://arxiv.org/abs/1512.03385, section 4.2) and option-B shortcuts.

    Args:
        depth: Number of layers, 6n + 2.
        widths: Channels of the stem and of the three stages.
        num_classes: Number of logits.
        in_chans: Number of image channels.

    Raises:
        InputError: If ``depth`` is not 6n + 2.
    """
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"depth must be 6n + 2, e.g. 20, but is {depth}")
    stem = nn.Sequential(conv3x3(in_chans, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU())
    blocks = residual_stages(widths[1:], (depth - 2) // 6, inputs=widths[0])
    return _initialized(BlockNetwork(stem, blocks, num_features=widths[-1], num_classes=num_classes))


def cifar_wrn(depth: int, width: int, *, num_classes: int = 10, in_chans: int = 3) -> BlockNetwork:
    """Build a wide ResNet with 6n + 4 layers and pre-activated blocks, without dropout.

    Paper: https://arxiv.org/abs/1605.07146.

    Args:
        depth: Number of layers, 6n + 4.
        width: Multiplier k of the channels 16, 32, 64.
        num_classes: Number of logits.
        in_chans: Number of image channels.

    Raises:
        InputError: If ``depth`` is not 6n + 4.
    """
    if depth < 10 or (depth - 4) % 6:
        raise InputError(f"depth must be 6n + 4, e.g. 16, but is {depth}")
    widths = [16 * width, 32 * width, 64 * width]
    blocks = residual_stages(widths, (depth - 4) // 6, inputs=16, pre_activation=True)
    norm = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU())
    return _initialized(
        BlockNetwork(conv3x3(in_chans, 16), blocks, num_features=widths[-1], num_classes=num_classes, norm=norm)
    )


def cifar_vgg(convolutions: int, *, num_classes: int = 10, in_chans: int = 3, image_size: int = 32) -> BlockNetwork:
    """Build a VGG (https://arxiv.org/abs/1409.1556) with batch norm and one linear layer on pooled features.

    It has five groups with 64 to 512 channels; the first three end with max-pooling. This is the form in the
    distillation benchmarks (https://arxiv.org/abs/1910.10699): VGG-8 has one convolution per group and VGG-13 has two.

    Args:
        convolutions: Convolutions per group.
        num_classes: Number of logits.
        in_chans: Number of image channels.
        image_size: Height and width of an image in pixels, at least 8; the network is the same for all sizes.

    Raises:
        InputError: If ``image_size`` is too small for the poolings.
    """
    if image_size < 8:
        raise InputError(f"image_size {image_size} is too small for the three poolings of a VGG: it must be 8 or more")

    def groups() -> Iterator[nn.Module]:
        inputs = in_chans
        for group, width in enumerate((64, 128, 256, 512, 512)):
            for index in range(convolutions):
                layers = [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                if group in (0, 1, 2) and index == convolutions - 1:
                    layers.append(nn.MaxPool2d(2))
                yield nn.Sequential(*layers)
                inputs = width

    return _initialized(BlockNetwork(nn.Identity(), groups(), num_features=512, num_classes=num_classes))


def cifar_imagenet_resnet(
    block: type[TimmBasicBlock] | type[Bottleneck],
    layers: tuple[int, ...],
    *,
    num_classes: int = 10,
    in_chans: int = 3,
    norm: Literal["instance", "batch"] = "batch",
    image_size: int = 32,
) -> ResNet:
    """Build timm's ImageNet ResNet with a 3x3 stem of stride 1 and without max-pooling, for 32x32 images.

    Args:
        block: Kind of block.
        layers: Number of blocks in the four stages.
        num_classes: Number of logits.
        in_chans: Number of image channels.
        norm: Norm layer: "batch", or "instance" (per channel and image, affine), used in the literature to evaluate
            distilled sets.
        image_size: Height and width of an image in pixels; only checked.

    Raises:
        InputError: If ``norm`` is unknown, or "instance" would normalize single pixels.
    """
    if norm == "instance" and image_size <= 8:
        raise InputError(
            f"norm instance would normalise single pixels at image_size {image_size}: choose batch, or 9 pixels or more"
        )
    # As at the time of these papers. timm's default sets the last norm of a block to zero, so that the block starts as
    # an identity.
    network = ResNet(block, layers, num_classes, in_chans, norm_layer=image_norm(norm), zero_init_last=False)  # type: ignore[arg-type]
    network.conv1 = conv3x3(in_chans, 64)
    network.maxpool = nn.Identity()
    he_initialization(network.conv1)
    return network


def _initialized(network: BlockNetwork) -> BlockNetwork:
    he_initialization(network)
    return network


_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "cifar_resnet8": partial(cifar_resnet, 8),
    "cifar_resnet14": partial(cifar_resnet, 14),
    "cifar_resnet20": partial(cifar_resnet, 20),
    "cifar_resnet32": partial(cifar_resnet, 32),
    "cifar_resnet44": partial(cifar_resnet, 44),
    "cifar_resnet56": partial(cifar_resnet, 56),
    "cifar_resnet110": partial(cifar_resnet, 110),
    "cifar_resnet8x4": partial(cifar_resnet, 8, widths=(32, 64, 128, 256)),
    "cifar_resnet32x4": partial(cifar_resnet, 32, widths=(32, 64, 128, 256)),
    "cifar_wrn_16_1": partial(cifar_wrn, 16, 1),
    "cifar_wrn_16_2": partial(cifar_wrn, 16, 2),
    "cifar_wrn_40_1": partial(cifar_wrn, 40, 1),
    "cifar_wrn_40_2": partial(cifar_wrn, 40, 2),
    "cifar_wrn_28_10": partial(cifar_wrn, 28, 10),
    "cifar_wrn_34_10": partial(cifar_wrn, 34, 10),
    "cifar_vgg8": partial(cifar_vgg, 1),
    "cifar_vgg13": partial(cifar_vgg, 2),
    "cifar_resnet18": partial(cifar_imagenet_resnet, TimmBasicBlock, (2, 2, 2, 2)),
    "cifar_resnet34": partial(cifar_imagenet_resnet, TimmBasicBlock, (3, 4, 6, 3)),
    "cifar_resnet50": partial(cifar_imagenet_resnet, Bottleneck, (3, 4, 6, 3)),
}
for _name, _build in _NETWORKS.items():
    register(_name, _build)
