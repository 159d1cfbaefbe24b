"""DGL: each module is trained by a small classifier that looks at a coarse map."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ..checks import one_of
from ._base import Auxiliary, Cut, LocalHead
from ._maps import ToMaps
from .auglocal import ClassifierHead


class DGL(Auxiliary):
    """Decoupled greedy learning: a classifier on the module's features, without gradient between modules.

    Paper: https://arxiv.org/abs/1901.08164. Tokens are taken as a square map.

    Args:
        head: "mlp-sr" pools the map to a quarter of its height and width, applies three 1x1 convolutions, pools to 2x2
            pixels and ends in three linear layers, and is what the paper's results are of; "mlp" is that without the
            convolutions; "cnn" is two 3x3 convolutions and one linear layer; "linear" is the mean of the map and one
            linear layer. All but the last normalise by batch.

    Raises:
        InputError: If ``head`` is unknown.
    """

    def __init__(self, head: Literal["mlp-sr", "mlp", "cnn", "linear"] = "mlp-sr") -> None:
        one_of(("mlp-sr", "mlp", "cnn", "linear"), head=head)
        self.head = head

    def build(self, cut: Cut) -> LocalHead:
        """The head behind one module."""
        maps = ToMaps(cut.features, channels_last=cut.channels_last)
        channels, height, width = maps.shape
        layers: list[nn.Module] = [maps]
        if self.head == "mlp-sr":
            layers.append(nn.AdaptiveAvgPool2d((-(-height // 4), -(-width // 4))))
            for _ in range(3):
                layers += convolution(channels, channels, 1)
        elif self.head == "cnn":
            for _ in range(2):
                layers += convolution(channels, channels, 3)
        if self.head in ("linear", "cnn"):
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, cut.num_classes)]
        else:
            layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
            for _ in range(2):
                layers += [nn.Linear(4 * channels, 4 * channels, bias=False), nn.BatchNorm1d(4 * channels), nn.ReLU()]
            layers.append(nn.Linear(4 * channels, cut.num_classes))
        return ClassifierHead(nn.Sequential(*layers))


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution with batch normalisation and ReLU."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]
