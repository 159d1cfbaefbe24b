"""InfoPro: each module keeps what the image needs to be rebuilt, and what tells the classes apart."""

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
    """The image is reconstructed from the module's features, and the features are trained for the classes.

    Paper: https://arxiv.org/abs/2101.10832. The loss is ``reconstruction`` times the cross-entropy of each pixel of
    the image, in [0, 1], plus ``task`` times the objective of a classifier, or a supervised contrastive loss. Both
    weights go linearly from the first head to the last. (MAN's released code goes by the stage of the network, which
    with few modules makes weights negative; that is not repeated here.) The pixels are known by the recipe's ``mean``
    and ``std``. Convolutions are normal with variance 2 / fan-out, the decoder's too, as in the authors' code.

    Args:
        mode: "softmax" trains a classifier by the run's objective, "contrast" features of unit length by the
            contrastive loss of https://arxiv.org/abs/2004.11362 with one view of each image, which needs class indices.
        reconstruction: Weight of the reconstruction for the first head and the last; one number is both. This default
            and the next are of the authors' code for ResNet-32 in 16 modules.
        task: Weight of the other part for the first head and the last.
        head: Convolutions and linear layers of the classifier, as the authors write it: "1c2f" is one convolution that
            doubles the channels and halves the map, up to 64 channels, and two linear layers; "0c1f" is a linear layer.
        hidden: Size of the hidden linear layers, and of the features of "contrast".
        temperature: Temperature of "contrast".

    Raises:
        InputError: If ``mode`` or ``head`` is unknown, or a weight, ``hidden`` or ``temperature`` is out of range, or
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
        """The head behind one module."""
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
    """Reconstruction of the image beside a task.

    Args:
        maps: Arranges the features as maps.
        decoder: From maps of the image's size to its pixels, before the sigmoid.
        layers: From maps to logits, or to features for the contrast.
        reconstruction: Weight of the reconstruction.
        task: Weight of the task.
        temperature: Temperature of the contrast; None trains ``layers`` by the objective.
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
        # What has no weight has no gradient either, which DDP and checkpoints are spared.
        self.decoder = decoder if reconstruction else None
        self.reads_pixels = bool(reconstruction)
        self.layers = layers if task else None
        self.reconstruction = reconstruction
        self.task = task
        self.temperature = temperature

    def forward(self, features: Tensor, batch: LocalBatch) -> Tensor:
        """Losses ``(N,)``."""
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
    """Supervised contrastive losses ``(N,)`` of features ``(N, D)``, one view each (https://arxiv.org/abs/2004.11362).

    An image's positives are the others of its class in the batch; without any its loss is 0.

    Args:
        features: Of any length; they are normalised.
        labels: Class indices ``(N,)``; of probabilities ``(N, C)`` the likeliest.
        temperature: Divides the cosines.
    """
    labels = labels if labels.ndim == 1 else labels.argmax(1)
    similar = cosines(F.normalize(at_least_single(features), dim=1)) / temperature
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == labels) & ~itself
    logs = similar.masked_fill(itself, torch.finfo(similar.dtype).min).log_softmax(1).masked_fill(~positive, 0)
    return -logs.sum(1) / positive.sum(1).clamp(min=1)


def image_decoder(channels: int, in_chans: int) -> nn.Module:
    """Two 3x3 convolutions from feature maps of the image's size to its channels, as in the authors' code."""
    decoder = nn.Sequential(*convolution(channels, 12, 3), nn.Conv2d(12, in_chans, 3, padding=1))
    he_initialization(decoder)
    return decoder


def classifier(channels: int, size: int, *, convolutions: int, linear: int, hidden: int) -> nn.Module:
    """Convolutions, of which the first halves the map, the mean, and linear layers."""
    layers: list[nn.Module] = []
    for index in range(convolutions):
        # 16 and 32 channels double at half the size; from 64 on both stay, as in the authors' code.
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
