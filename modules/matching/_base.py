"""Base class of matching losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ClassBatch:
    """Images of several classes, sorted by class.

    Attributes:
        images: Normalized, shape ``(N, C, H, W)``.
        labels: Class indices, shape ``(N,)``, grouped by class.
        counts: Number of images per class, in the same order, known on the host.
    """

    images: Tensor
    labels: Tensor
    counts: Sequence[int]


class Matching(ABC):
    """Base class of losses that compare synthetic with real images in a network not trained for this comparison."""

    network_steps: int = 1
    """Number of steps before the network is replaced by a new one."""

    mixes_classes: bool = False
    """True if the loss of a class depends on images of other classes; set by `attach`."""

    @abstractmethod
    def attach(self, network: nn.Module, *, images_per_class: int) -> None:
        """Adapt to the architecture of the network before the first step; its weights may change later.

        Args:
            network: Network with timm's ``forward_features`` and ``forward_head``.
            images_per_class: Number of synthetic images per class.

        Raises:
            InputError: If the network does not fit this loss.
        """

    @abstractmethod
    def terms(self, network: nn.Module, real: ClassBatch, synthetic: ClassBatch, num_classes: int) -> dict[str, Tensor]:
        """Return the named terms of a step's loss, each a sum over classes; the sum of the terms is minimized.

        Args:
            network: The network of this step.
            real: Real images.
            synthetic: Synthetic images of the same classes; they receive the gradients.
            num_classes: Total number of classes C; the batch may hold fewer.
        """

    def train_network(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, augment: Callable[[Tensor, int], Tensor], seed: int
    ) -> None:
        """Train the network between two of its ``network_steps``.

        Args:
            network: The network, changed in place.
            images: All synthetic images, shape ``(N, C, H, W)``.
            labels: Classes of the images, shape ``(N,)``.
            augment: Function of a batch and its number within this call; augments as in evaluation.
            seed: Seed of the order of the images.
        """
        raise NotImplementedError(f"{type(self).__name__} needs no trained network")


def with_gradients(terms: dict[str, Tensor], images: Tensor, gradients: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return terms with the same values; a backward pass through their sum gives the images these gradients.

    The gradient of each part of the images can then be computed while only the graph of this part is in memory.

    Args:
        terms: Terms of the loss, without a graph.
        images: Shape ``(N, C, H, W)``.
        gradients: Gradient of the sum of the terms with respect to the images, in pieces along N.
    """
    carrier = (images * torch.cat(list(gradients))).sum()
    first = next(iter(terms))
    return {**terms, first: terms[first] + (carrier - carrier.detach())}


def has_batch_statistics(network: nn.Module) -> bool:
    """Return whether an image's features depend on the other images of its batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
