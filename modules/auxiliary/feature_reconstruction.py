"""Feature reconstruction: each module keeps what its own input needs to be rebuilt."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.feature_maps import ToMaps, at_least_single
from ._base import Auxiliary, Cut, LocalBatch, LocalHead, check_auxiliary, first_and_last
from .dgl import DGL


class FeatureReconstruction(Auxiliary):
    """The input of the module is reconstructed from its output, beside any head; for transformers.

    Paper: https://arxiv.org/abs/2212.14215, of which decoders and weights were not at hand and which has no released
    code. What is here is our own reading: the target is the module's detached input, each pixel or token normalised;
    the decoder is a 1x1 convolution to as many channels as the stages of the module have merged pixels, which are put
    in their places, and a 3x3 convolution; the loss is the mean squared error. The first module reconstructs the image
    as the network gets it.

    Args:
        weight: Weight of the reconstruction for the first head and the last; it goes linearly between them. One number
            is both.
        head: What trains the features beside it. None is `DGL` with a linear layer.

    Raises:
        InputError: If ``weight`` is not one number or two, of 0 or more, or ``head`` is no kind of head.
    """

    def __init__(self, weight: float | tuple[float, float] = (1.0, 1.0), *, head: Auxiliary | None = None) -> None:
        self.weight = first_and_last("weight", weight)
        self.head = head if head is not None else DGL("linear")
        check_auxiliary("head", self.head)
        self.kept_units, self.coupled = self.head.kept_units, self.head.coupled

    def build(self, cut: Cut) -> LocalHead:
        """The head behind one module."""
        weight = self.weight[0] * (1 - cut.share()) + self.weight[1] * cut.share()
        features = ToMaps(cut.features, channels_last=cut.channels_last)
        image = len(cut.inputs) == 4 and cut.index == 0
        inputs = ToMaps(cut.inputs, channels_last=cut.channels_last and not image)
        return ReconstructionHead(self.head.build(cut), features, inputs, weight=weight, normalise=not image)


class ReconstructionHead(LocalHead):
    """A head with the reconstruction of the module's input beside it.

    Args:
        head: What trains the features beside it.
        features: Arranges the module's output as maps.
        inputs: Arranges its input as maps.
        weight: Weight of the reconstruction.
        normalise: Whether each pixel or token of the input is normalised over its channels.
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
        """Losses ``(N,)``."""
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
        """Pass on."""
        self.head.before_step(network)

    def after_step(self, network: nn.Module) -> None:
        """Pass on."""
        self.head.after_step(network)
