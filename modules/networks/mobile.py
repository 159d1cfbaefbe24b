"""MobileNetV2, ShuffleNetV1 and ShuffleNetV2 for images of 32x32 pixels, as used in the distillation literature."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import check
from ._blocks import BlockNetwork, he_initialization
from ._registry import register


class InvertedResidual(nn.Module):
    """MobileNetV2's block: a widening 1x1 convolution, a depthwise 3x3 one, and a narrowing 1x1 one without activation.

    Paper: https://arxiv.org/abs/1801.04381. The input is added if the shape stays the same.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Stride of the depthwise convolution.
        expansion: Width of the middle, as a multiple of ``inputs``.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *_convolution(inputs, middle, 1),
            *_convolution(middle, middle, 3, stride=stride, groups=middle),
            *_convolution(middle, outputs, 1, activate=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        return x + self.layers(x) if self.adds else self.layers(x)


class ShuffleUnitV1(nn.Module):
    """ShuffleNetV1's block: grouped 1x1 convolutions with a channel shuffle, and a shortcut.

    Paper: https://arxiv.org/abs/1707.01083. With stride 2 the shortcut is mean-pooled and its channels are appended.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: 1 or 2.
        groups: Groups of the second 1x1 convolution.
        first_groups: Groups of the first 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        width = outputs - inputs if stride == 2 else outputs
        middle = width // 4
        self.stride = stride
        self.reduce = nn.Sequential(*_convolution(inputs, middle, 1, groups=first_groups))
        self.shuffle = nn.ChannelShuffle(first_groups)
        self.filter = nn.Sequential(*_convolution(middle, middle, 3, stride=stride, groups=middle))
        self.expand = nn.Sequential(*_convolution(middle, width, 1, groups=groups, activate=False))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        out = self.expand(self.filter(self.shuffle(self.reduce(x))))
        if self.stride == 2:
            return self.act(torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], 1))
        return self.act(out + x)


class ShuffleUnitV2(nn.Module):
    """ShuffleNetV2's block: one half of the channels is transformed, then both halves are shuffled.

    Paper: https://arxiv.org/abs/1807.11164. With stride 2 both halves are computed from all channels.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential()
        if stride == 2:
            self.left = nn.Sequential(
                *_convolution(inputs, inputs, 3, stride=2, groups=inputs, activate=False),
                *_convolution(inputs, half, 1),
            )
        self.right = nn.Sequential(
            *_convolution(inputs if stride == 2 else half, half, 1),
            *_convolution(half, half, 3, stride=stride, groups=half, activate=False),
            *_convolution(half, half, 1),
        )
        self.stride = stride
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        left, right = (x, x) if self.stride == 2 else x.chunk(2, 1)
        return self.shuffle(torch.cat([self.left(left), self.right(right)], 1))


def cifar_mobilenetv2(*, width: float = 0.5, num_classes: int = 10, in_chans: int = 3) -> BlockNetwork:
    """Build a MobileNetV2 (https://arxiv.org/abs/1801.04381), half as wide as the original, with a stem of stride 2.

    This is the form in the distillation benchmarks (https://arxiv.org/abs/1910.10699). An image of 32x32 pixels ends as
    a map of 2x2. The stages end with blocks 0, 2, 5, 9, 12, 15 and 16.

    Args:
        width: Multiplier of all channels. The last layer has at least 1,280 channels.
        num_classes: Number of logits.
        in_chans: Number of image channels.

    Raises:
        InputError: If ``width`` leaves a layer without channels.
    """
    check(16 * width >= 1, "width", width, "at least 1/16")
    channels = int(32 * width)
    stem = nn.Sequential(*_convolution(in_chans, channels, 3, stride=2))

    def blocks() -> Iterator[nn.Module]:
        inputs = channels
        for expansion, wide, count, first_stride in _MOBILENETV2_STAGES:
            outputs = int(wide * width)
            for index in range(count):
                stride = 1 if index else first_stride
                yield InvertedResidual(inputs, outputs, stride=stride, expansion=expansion)
                inputs = outputs

    last = int(1280 * max(1.0, width))
    norm = nn.Sequential(*_convolution(int(320 * width), last, 1))
    network = BlockNetwork(stem, blocks(), num_features=last, num_classes=num_classes, norm=norm)
    he_initialization(network)
    if num_classes:
        assert isinstance(network.classifier, nn.Linear)
        nn.init.normal_(network.classifier.weight, 0, 0.01)
        nn.init.zeros_(network.classifier.bias)
    return network


def cifar_shufflenetv1(*, num_classes: int = 10, in_chans: int = 3) -> BlockNetwork:
    """Build a ShuffleNetV1 with 3 groups (https://arxiv.org/abs/1707.01083) and a 1x1 stem of stride 1.

    This is the form in the distillation benchmarks (https://arxiv.org/abs/1910.10699). Its three stages of 240, 480 and
    960 channels end with blocks 3, 11 and 15. Weights have PyTorch's default initialization.

    Args:
        num_classes: Number of logits.
        in_chans: Number of image channels.
    """

    def blocks() -> Iterator[nn.Module]:
        inputs = 24
        for outputs, count in ((240, 4), (480, 8), (960, 4)):
            for index in range(count):
                first_groups = 1 if inputs == 24 else 3
                yield ShuffleUnitV1(inputs, outputs, stride=1 if index else 2, groups=3, first_groups=first_groups)
                inputs = outputs

    stem = nn.Sequential(*_convolution(in_chans, 24, 1))
    return BlockNetwork(stem, blocks(), num_features=960, num_classes=num_classes)


def cifar_shufflenetv2(*, num_classes: int = 10, in_chans: int = 3) -> BlockNetwork:
    """Build a ShuffleNetV2 of width 1 (https://arxiv.org/abs/1807.11164) with a 1x1 stem of stride 1.

    This is the form in the distillation benchmarks (https://arxiv.org/abs/1910.10699). Its three stages of 116, 232 and
    464 channels end with blocks 3, 11 and 15. Weights have PyTorch's default initialization.

    Args:
        num_classes: Number of logits.
        in_chans: Number of image channels.
    """

    def blocks() -> Iterator[nn.Module]:
        inputs = 24
        for outputs, count in ((116, 4), (232, 8), (464, 4)):
            for index in range(count):
                yield ShuffleUnitV2(inputs, outputs, stride=1 if index else 2)
                inputs = outputs

    stem = nn.Sequential(*_convolution(in_chans, 24, 1))
    norm = nn.Sequential(*_convolution(464, 1024, 1))
    return BlockNetwork(stem, blocks(), num_features=1024, num_classes=num_classes, norm=norm)


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, activate: bool = True
) -> Iterator[nn.Module]:
    """Yield a convolution without bias, batch norm and, if ``activate``, ReLU."""
    yield nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    yield nn.BatchNorm2d(outputs)
    if activate:
        yield nn.ReLU()


# Expansion, channels at width 1, blocks, stride of the first block.
_MOBILENETV2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

register("cifar_mobilenetv2", cifar_mobilenetv2)
register("cifar_shufflenetv1", cifar_shufflenetv1)
register("cifar_shufflenetv2", cifar_shufflenetv2)
