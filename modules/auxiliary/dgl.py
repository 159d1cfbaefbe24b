"""DGL: train each module with a small classifier on its pooled features."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ..core.checks import one_of
from ..core.feature_maps import ToMaps
from ..networks._blocks import he_initialization
from ._base import Auxiliary, Cut, LocalHead
from .auglocal import ClassifierHead


class DGL(Auxiliary):
    """Decoupled greedy learning: a classifier on the module's features, without gradients between modules.

    Paper: https://arxiv.org/abs/1901.08164. Tokens are used as a square map. All heads except "linear" use batch norm.

    Args:
        head: "mlp-sr" pools the map to a quarter of its height and width and applies three 1x1 convolutions. It then
            pools to 2x2 pixels and applies hidden linear layers of 4C units, with C channels, and a linear classifier.
            The paper's results use "mlp-sr". "mlp" has no convolutions. "cnn" is two 3x3 convolutions and a linear
            layer. "linear" is the mean of the map and a linear layer.
        source: Released code that the heads follow. "auglocal" is AugLocal's code; DGL is the baseline in the tables of
            AugLocal and MAN. It has two hidden layers without biases and He-normal convolutions, and "mlp" does not
            pool first. Its "cnn" is ours and classifies the mean of the map. "dgl" is the code of the DGL paper: three
            hidden layers with biases and PyTorch's initialization. Its "cnn" pools to 2x2 pixels and normalizes them.

    Raises:
        InputError: If ``head`` or ``source`` is unknown.
    """

    def __init__(
        self,
        head: Literal["mlp-sr", "mlp", "cnn", "linear"] = "mlp-sr",
        *,
        source: Literal["auglocal", "dgl"] = "auglocal",
    ) -> None:
        one_of(("mlp-sr", "mlp", "cnn", "linear"), head=head)
        one_of(("auglocal", "dgl"), source=source)
        self.head = head
        self.source = source

    def build(self, cut: Cut) -> LocalHead:
        """Build the head for one module."""
        maps = ToMaps(cut.features, channels_last=cut.channels_last)
        channels, height, width = maps.shape
        papers = self.source == "dgl"
        layers: list[nn.Module] = [maps]
        if self.head == "mlp-sr" or (papers and self.head == "mlp"):
            layers.append(nn.AdaptiveAvgPool2d((-(-height // 4), -(-width // 4))))
        if self.head in ("mlp-sr", "cnn"):
            for _ in range(3 if self.head == "mlp-sr" else 2):
                layers += convolution(channels, channels, 1 if self.head == "mlp-sr" else 3)
        if self.head == "linear" or (self.head == "cnn" and not papers):
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, cut.num_classes)]
        elif self.head == "cnn":
            layers += [nn.AdaptiveAvgPool2d(2), nn.BatchNorm2d(channels), nn.Flatten()]
            layers.append(nn.Linear(4 * channels, cut.num_classes))
        else:
            layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
            size = 4 * channels
            for _ in range(3 if papers else 2):
                layers += [nn.Linear(size, size, bias=papers), nn.BatchNorm1d(size), nn.ReLU()]
            layers.append(nn.Linear(size, cut.num_classes))
        network = nn.Sequential(*layers)
        if not papers:
            he_initialization(network)
        return ClassifierHead(network)


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    """Return a convolution with batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]
