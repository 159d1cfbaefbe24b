"""PredSim: train each module to predict the class and to make images of one class similar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import at_least, check
from ..core.feature_maps import ToMaps, at_least_single, cosines
from ._base import Auxiliary, Cut, LocalBatch, LocalHead


class PredSim(Auxiliary):
    """Linear classifier on pooled features, plus a loss that matches the features' similarities to the labels'.

    Paper: https://arxiv.org/abs/1901.06656. The loss is ``(1 - s) · L + s · mean((S(features) - S(labels))²)``. Here s
    is ``similarity``, L the run's objective on the classifier's logits, and S the similarities within the batch. Each
    image gets the mean over its row of S, so the mean over the batch is the paper's loss. In the paper each layer has
    its own optimizer and steps at once; see ``step_per_module`` of the recipe.

    Args:
        similarity: Weight s of the similarity loss, 0.99 in the authors' code.
        features: Largest number of pooled features for the classifier, 4096 in the authors' code. Height and width of
            the map are halved in turn, height first, until the features fit.

    Raises:
        InputError: If ``similarity`` is outside [0, 1] or ``features`` is less than 1.
    """

    def __init__(self, *, similarity: float = 0.99, features: int = 4096) -> None:
        check(0 <= similarity <= 1, "similarity", similarity, "in [0, 1]")
        at_least(1, features=features)
        self.similarity = similarity
        self.features = features

    def build(self, cut: Cut) -> LocalHead:
        """Build the head for one module."""
        maps = ToMaps(cut.features, channels_last=cut.channels_last)
        channels, height, width = maps.shape
        size = pooled_size(channels, height, width, features=self.features)
        return PredSimHead(maps, size, cut.num_classes, similarity=self.similarity)


def pooled_size(channels: int, height: int, width: int, *, features: int) -> tuple[int, int]:
    """Return the height and width after pooling: both are halved in turn, height first, until the features fit.

    Args:
        channels: Channels of the map.
        height: Height of the map.
        width: Width of the map.
        features: Largest product of channels, height and width.

    Examples:
        >>> pooled_size(128, 32, 32, features=4096)
        (4, 8)
    """
    size, next_side = [height, width], 0
    while channels * size[0] * size[1] > features and max(size) > 1:
        size[next_side] = -(-size[next_side] // 2)
        next_side = 1 - next_side
    return size[0], size[1]


class PredSimHead(LocalHead):
    """Head with a prediction loss and a similarity loss.

    Args:
        maps: Converts the features to maps.
        size: Height and width that maps are pooled to for the classifier.
        num_classes: Number of classes.
        similarity: Weight of the similarity loss.
    """

    def __init__(self, maps: ToMaps, size: tuple[int, int], num_classes: int, *, similarity: float) -> None:
        super().__init__()
        channels = maps.channels
        self.maps = maps
        self.similarity = similarity
        self.num_classes = num_classes
        self.predict = self.compare = None
        if similarity < 1:
            classifier = nn.Linear(channels * size[0] * size[1], num_classes)
            # Zero, as in the authors' code: the classifier then does not disturb the features at first.
            nn.init.zeros_(classifier.weight)
            self.predict = nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Flatten(), classifier)
        if similarity > 0:
            self.compare = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, features: Tensor, batch: LocalBatch) -> Tensor:
        """Return the losses ``(N,)``."""
        maps = self.maps(features)
        losses = features.new_zeros(len(features), dtype=torch.float32)
        if self.predict is not None:
            losses = losses + (1 - self.similarity) * batch.classify(self.predict(maps))
        if self.compare is not None:
            labels = batch.labels
            wanted = similarities((F.one_hot(labels, self.num_classes) if labels.ndim == 1 else labels).float())
            losses = losses + self.similarity * (similarities(self.compare(maps)) - wanted).square().mean(1)
        return losses


def similarities(features: Tensor) -> Tensor:
    """Return the cosines ``(N, N)`` between centered features, in [-1, 1].

    As in the authors' code, a map ``(N, C, h, w)`` is first reduced to the standard deviation of every channel. Maps
    with three channels or fewer, or one pixel, are used as they are.
    """
    features = at_least_single(features)
    if features.ndim == 4:
        if features.shape[1] > 3 and features.shape[2] * features.shape[3] > 1:
            features = features.flatten(2).std(2)
        features = features.flatten(1)
    centred = features - features.mean(1, keepdim=True)
    rows = centred / (centred.norm(dim=1, keepdim=True) + 1e-8)
    return cosines(rows).clamp(-1, 1)
