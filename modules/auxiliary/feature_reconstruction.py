"""Feature reconstruction: train each module to keep the information needed to rebuild its input."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.feature_maps import ToMaps, at_least_single
from ._base import Auxiliary, Cut, LocalBatch, LocalHead, check_auxiliary, first_and_last
from .dgl import DGL


class FeatureReconstruction(Auxiliary):
    """Reconstruction of a module's input from its output, added to any head; for transformers.

    Paper: https://arxiv.org/abs/2212.14215. It has no released code, and its decoders and loss weights were not
    available, so this is our reading. The target is the module's detached input, with every pixel or token normalized.
    The decoder is a 1x1 convolution, a pixel shuffle back to the input's resolution and a 3x3 convolution. The loss is
    the mean squared error. The first module reconstructs the image that the network gets.

    Args:
        weight: Weights of the reconstruction for the first and the last head, interpolated linearly between them. One
            number gives both.
        head: Kind of head that the reconstruction is added to. None is `DGL` with a linear layer.

    Raises:
        InputError: If ``weight`` is not one number or two, at least 0, or ``head`` is no kind of head.
    """

    def __init__(self, weight: float | tuple[float, float] = (1.0, 1.0), *, head: Auxiliary | None = None) -> None:
        self.weight = first_and_last("weight", weight)
        self.head = head if head is not None else DGL("linear")
        check_auxiliary("head", self.head)
        self.kept_units, self.coupled = self.head.kept_units, self.head.coupled

    def build(self, cut: Cut) -> LocalHead:
        """Build the head for one module."""
        weight = self.weight[0] * (1 - cut.share()) + self.weight[1] * cut.share()
        features = ToMaps(cut.features, channels_last=cut.channels_last)
        image = len(cut.inputs) == 4 and cut.index == 0
        inputs = ToMaps(cut.inputs, channels_last=cut.channels_last and not image)
        return ReconstructionHead(self.head.build(cut), features, inputs, weight=weight, normalise=not image)


class ReconstructionHead(LocalHead):
    """Head that adds the reconstruction of the module's input to another head.

    Args:
        head: The other head.
        features: Converts the module's output to maps.
        inputs: Converts the module's input to maps.
        weight: Weight of the reconstruction.
        normalise: True normalizes every pixel or token of the input over its channels.
    """

    def __init__(self, head: LocalHead, features: ToMaps, inputs: ToMaps, *, weight: float, normalise: bool) -> None:
        super().__init__()
        self.head = head
        self.features = features
        self.inputs = inputs
        self.weight = weight
        self.normalise = normalise
        self.reads_inputs = bool(weight)
        ratio = max(1, math.ceil(inputs.shape[1] / features.shape[1]))
        self.decoder = None
        if weight:
            self.decoder = nn.Sequential(
                nn.Conv2d(features.channels, inputs.channels * ratio**2, 1),
                nn.PixelShuffle(ratio),
                nn.Conv2d(inputs.channels, inputs.channels, 3, padding=1),
            )

    def forward(self, features: Tensor, batch: LocalBatch) -> Tensor:
        """Return the losses ``(N,)``."""
        losses = self.head(features, batch)
        if self.decoder is None:
            return losses
        with torch.no_grad():
            target = at_least_single(self.inputs(batch.inputs))
            if self.normalise:
                target = F.layer_norm(target.movedim(1, -1), target.shape[1:2]).movedim(-1, 1)
        rebuilt = self.decoder(self.features(features))
        if rebuilt.shape[2:] != target.shape[2:]:
            rebuilt = F.interpolate(rebuilt, size=target.shape[2:], mode="bilinear")
        return losses + self.weight * (at_least_single(rebuilt) - target).square().mean((1, 2, 3))

    def before_step(self, network: nn.Module) -> None:
        """Call `before_step` of the other head."""
        self.head.before_step(network)

    def after_step(self, network: nn.Module) -> None:
        """Call `after_step` of the other head."""
        self.head.after_step(network)
