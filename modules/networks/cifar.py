"""ResNets, wide ResNets and VGGs for images of 32x32 pixels, as the distillation literature uses them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from timm.models.resnet import BasicBlock as TimmBasicBlock
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from ..errors import InputError
from ._blocks import BlockNetwork, conv3x3, he_initialization, residual_stages
from ._registry import register


def cifar_resnet(
    depth: int, *, widths: Sequence[int] = (16, 16, 32, 64), num_classes: int = 10, in_chans: int = 3
) -> BlockNetwork:
    """ResNet of 6n + 2 layers (https://arxiv.org/abs/1512.03385, section 4.2), with option-B shortcuts.

    Args:
        depth: Number of layers, 6n + 2.
        widths: Channels of the stem and of the three stages.
        num_classes: Size of the output.
        in_chans: Channels of an image.

    Raises:
        InputError: If ``depth`` is not 6n + 2.
    """
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"depth must be 6n + 2, e.g. 20, but is {depth}")
    stem = nn.Sequential(conv3x3(in_chans, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU())
    blocks = residual_stages(widths[1:], (depth - 2) // 6, inputs=widths[0])
    return _initialized(BlockNetwork(stem, blocks, num_features=widths[-1], num_classes=num_classes))


def cifar_wrn(depth: int, *, width: int, num_classes: int = 10, in_chans: int = 3) -> BlockNetwork:
    """Wide ResNet of 6n + 4 layers with pre-activated blocks (https://arxiv.org/abs/1605.07146), without dropout.

    Args:
        depth: Number of layers, 6n + 4.
        width: Multiplier k of the channels 16, 32, 64.
        num_classes: Size of the output.
        in_chans: Channels of an image.

    Raises:
        InputError: If ``depth`` is not 6n + 4.
    """
    if depth < 10 or (depth - 4) % 6:
        raise InputError(f"depth must be 6n + 4, e.g. 16, but is {depth}")
    widths = [16 * width, 32 * width, 64 * width]
    blocks = residual_stages(widths, (depth - 4) // 6, inputs=16, pre_activation=True)
    pool = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return _initialized(
        BlockNetwork(conv3x3(in_chans, 16), blocks, num_features=widths[-1], num_classes=num_classes, pool=pool)
    )


def cifar_vgg(convolutions: int, *, num_classes: int = 10, in_chans: int = 3) -> BlockNetwork:
    """VGG (https://arxiv.org/abs/1409.1556) with batch normalisation and one linear layer on pooled features.

    Five groups of 64 to 512 channels; the first three end in a max-pooling, so images need 8 pixels a side. This is
    the form of the distillation benchmarks (https://arxiv.org/abs/1910.10699), in which VGG-8 has one convolution a
    group and VGG-13 two.

    Args:
        convolutions: Convolutions in each group.
        num_classes: Size of the output.
        in_chans: Channels of an image.
    """

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
) -> ResNet:
    """Timm's ImageNet ResNet with a 3x3 stem of stride 1 and no max-pooling, which keeps 32x32 images from vanishing.

    Args:
        block: Kind of block.
        layers: Blocks in each of the four stages.
        num_classes: Size of the output.
        in_chans: Channels of an image.
    """
    network = ResNet(block, layers, num_classes, in_chans, zero_init_last=False)  # type: ignore[arg-type]
    network.conv1 = conv3x3(in_chans, 64)
    network.maxpool = nn.Identity()
    he_initialization(network.conv1)
    return network


def _initialized(network: BlockNetwork) -> BlockNetwork:
    he_initialization(network)
    return network


for _depth in (8, 14, 20, 32, 44, 56, 110):
    register(f"cifar_resnet{_depth}", partial(cifar_resnet, _depth))
for _depth in (8, 32):
    register(f"cifar_resnet{_depth}x4", partial(cifar_resnet, _depth, widths=(32, 64, 128, 256)))
for _depth, _width in ((16, 1), (16, 2), (40, 1), (40, 2), (28, 10)):
    register(f"cifar_wrn_{_depth}_{_width}", partial(cifar_wrn, _depth, width=_width))
for _layers, _convolutions in ((8, 1), (13, 2)):
    register(f"cifar_vgg{_layers}", partial(cifar_vgg, _convolutions))
register("cifar_resnet18", partial(cifar_imagenet_resnet, TimmBasicBlock, (2, 2, 2, 2)))
register("cifar_resnet34", partial(cifar_imagenet_resnet, TimmBasicBlock, (3, 4, 6, 3)))
register("cifar_resnet50", partial(cifar_imagenet_resnet, Bottleneck, (3, 4, 6, 3)))
