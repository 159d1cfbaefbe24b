"""InfoPro: train each module to keep the information needed to rebuild the image and to separate the classes."""

from __future__ import annotations

import math
import re
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import at_least, check, one_of
from ..core.errors import InputError
from ..core.feature_maps import ToMaps, at_least_single, cosines
from ..networks._blocks import he_initialization
from ._base import Auxiliary, Cut, LocalBatch, LocalHead, first_and_last
from .dgl import convolution


class InfoPro(Auxiliary):
    """Reconstruction of the image from the module's features, plus a classification or contrastive loss.

    Paper: https://arxiv.org/abs/2101.10832. The loss is ``reconstruction · BCE(pixels) + task · L``. BCE is the mean
    binary cross-entropy of the image's pixels in [0, 1]. L is the run's objective on a classifier's logits, or a
    supervised contrastive loss. Both weights are interpolated linearly from the first head to the last. MAN's released
    code interpolates by the network's stage instead, and with few modules its weights become negative. The recipe
    computes the pixels with its ``mean`` and ``std``. All convolutions, including the decoder's, are initialized
    normally with variance 2 / fan-out, as in the authors' code.

    Args:
        mode: "softmax" trains a classifier with the run's objective. "contrast" trains features of unit length with
            the contrastive loss of https://arxiv.org/abs/2004.11362 and one view per image; it needs class indices.
        reconstruction: Weights of the reconstruction for the first and the last head; one number gives both. The
            defaults of both weights are the authors' for ResNet-32 in 16 modules.
        task: Weights of the other loss for the first and the last head.
        head: Convolutions and linear layers of the classifier, in the authors' notation. "1c2f" is one convolution and
            two linear layers; "0c1f" is a linear layer. With fewer than 64 channels the first convolution doubles them
            and halves the map.
        hidden: Size of the hidden linear layers, and of the features of "contrast".
        temperature: Temperature of "contrast".

    Raises:
        InputError: If ``mode`` or ``head`` is unknown, a weight, ``hidden`` or ``temperature`` is out of range, or
            both weights of a head are 0.
    """

    def __init__(
        self,
        mode: Literal["softmax", "contrast"] = "softmax",
        *,
        reconstruction: float | tuple[float, float] = (5.0, 0.2),
        task: float | tuple[float, float] = (0.05, 0.5),
        head: str = "1c2f",
        hidden: int = 128,
        temperature: float = 0.07,
    ) -> None:
        one_of(("softmax", "contrast"), mode=mode)
        if not re.fullmatch(r"\dc[1-9]f", str(head)):
            raise InputError(f"head says its convolutions and linear layers, e.g. 1c2f, but is {head!r}")
        reconstruction, task = first_and_last("reconstruction", reconstruction), first_and_last("task", task)
        if 0 in (reconstruction[0] + task[0], reconstruction[1] + task[1]):
            raise InputError(
                f"reconstruction {reconstruction} and task {task} leave a head without a loss: raise one of the weights"
            )
        at_least(1, hidden=hidden)
        check(0 < temperature < math.inf, "temperature", temperature, "positive, and finite,")
        self.mode = mode
        self.reconstruction = reconstruction
        self.task = task
        self.head = head
        self.hidden = hidden
        self.temperature = temperature

    def build(self, cut: Cut) -> LocalHead:
        """Build the head for one module."""
        first, last = (tuple(values[end] for values in (self.reconstruction, self.task)) for end in (0, 1))
        share = cut.share()
        weights = [before * (1 - share) + after * share for before, after in zip(first, last, strict=True)]
        convolutions, linear = int(self.head[0]), int(self.head[2])
        maps = ToMaps(cut.features, channels_last=cut.channels_last)
        size = self.hidden if self.mode == "contrast" else cut.num_classes
        return InfoProHead(
            maps,
            image_decoder(maps.channels, cut.in_chans),
            classifier(maps.channels, size, convolutions=convolutions, linear=linear, hidden=self.hidden),
            reconstruction=weights[0],
            task=weights[1],
            temperature=self.temperature if self.mode == "contrast" else None,
        )


class InfoProHead(LocalHead):
    """Head with a reconstruction loss and a task loss.

    Args:
        maps: Converts the features to maps.
        decoder: Network from maps of the image's size to its pixels, before the sigmoid.
        layers: Network from maps to logits, or to features for the contrastive loss.
        reconstruction: Weight of the reconstruction.
        task: Weight of the task loss.
        temperature: Temperature of the contrastive loss; None uses the run's objective.
    """

    def __init__(
        self,
        maps: ToMaps,
        decoder: nn.Module,
        layers: nn.Module,
        *,
        reconstruction: float,
        task: float,
        temperature: float | None,
    ) -> None:
        super().__init__()
        self.maps = maps
        # A loss of weight 0 gives no gradients, so its layers are left out of DDP and checkpoints.
        self.decoder = decoder if reconstruction else None
        self.reads_pixels = bool(reconstruction)
        self.layers = layers if task else None
        self.reconstruction = reconstruction
        self.task = task
        self.temperature = temperature

    def forward(self, features: Tensor, batch: LocalBatch) -> Tensor:
        """Return the losses ``(N,)``."""
        maps = self.maps(features)
        losses = features.new_zeros(len(features), dtype=torch.float32)
        if self.decoder is not None:
            pixels = batch.pixels().clamp(0, 1)
            large = F.interpolate(maps, size=pixels.shape[2:], mode="bilinear", align_corners=True)
            cross = F.binary_cross_entropy_with_logits(self.decoder(large), pixels, reduction="none")
            losses = losses + self.reconstruction * cross.mean((1, 2, 3))
        if self.layers is not None:
            answers = self.layers(maps)
            if self.temperature is None:
                task = batch.classify(answers)
            else:
                task = contrastive_loss(answers, batch.labels, temperature=self.temperature)
            losses = losses + self.task * task
        return losses


def contrastive_loss(features: Tensor, labels: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Compute the supervised contrastive loss with one view per image (https://arxiv.org/abs/2004.11362).

    ``L_i = -mean_p log(exp(cos(f_i, f_p) / T) / Σ_j exp(cos(f_i, f_j) / T))`` with j ≠ i. The
    positives p are the other images of the same class in the batch. Without positives the loss is 0.

    Args:
        features: Features f, shape ``(N, D)``; they are normalized.
        labels: Class indices ``(N,)``, or probabilities ``(N, C)``, where the most probable class is used.
        temperature: Temperature T.

    Returns:
        Losses, shape ``(N,)``.
    """
    labels = labels if labels.ndim == 1 else labels.argmax(1)
    similar = cosines(F.normalize(at_least_single(features), dim=1)) / temperature
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == labels) & ~itself
    logs = similar.masked_fill(itself, torch.finfo(similar.dtype).min).log_softmax(1).masked_fill(~positive, 0)
    return -logs.sum(1) / positive.sum(1).clamp(min=1)


def image_decoder(channels: int, in_chans: int) -> nn.Module:
    """Return two 3x3 convolutions from feature maps of the image's size to its channels, as in the authors' code."""
    decoder = nn.Sequential(*convolution(channels, 12, 3), nn.Conv2d(12, in_chans, 3, padding=1))
    he_initialization(decoder)
    return decoder


def classifier(channels: int, size: int, *, convolutions: int, linear: int, hidden: int) -> nn.Module:
    """Return a network of convolutions, the mean over the map, and linear layers."""
    layers: list[nn.Module] = []
    for index in range(convolutions):
        # Below 64 channels, double them and halve the map; from 64 on keep both, as in the authors' code.
        wider = 2 * channels if index == 0 and channels < 64 else channels
        layers += convolution(channels, wider, 3, 2 if wider > channels else 1)
        channels = wider
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for _ in range(linear - 1):
        layers += [nn.Linear(channels, hidden), nn.ReLU()]
        channels = hidden
    network = nn.Sequential(*layers, nn.Linear(channels, size))
    he_initialization(network)
    return network
