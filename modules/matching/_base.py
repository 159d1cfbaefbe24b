"""Base class of matching losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ClassBatch:
    """Images of several classes, one class after the other.

    Attributes:
        images: Normalized, shape ``(N, C, H, W)``.
        labels: Class indices, shape ``(N,)``, equal ones side by side.
        counts: Images per class, in that order, known without asking the device.
    """

    images: Tensor
    labels: Tensor
    counts: Sequence[int]


class Matching(ABC):
    """Compares synthetic with real images in a network that was not trained for it."""

    network_steps: int = 1
    """Steps that a network serves before a fresh one takes its place."""

    mixes_classes: bool = False
    """Whether the loss of a class depends on the images of other classes, once attached to a network."""

    @abstractmethod
    def attach(self, network: nn.Module, *, images_per_class: int) -> None:
        """Look at the network that all steps will use, its weights apart, before the first.

        Args:
            network: With timm's ``forward_features`` and ``forward_head``.
            images_per_class: Synthetic images per class.

        Raises:
            InputError: If the network does not go with this loss.
        """

    @abstractmethod
    def terms(self, network: nn.Module, real: ClassBatch, synthetic: ClassBatch, num_classes: int) -> dict[str, Tensor]:
        """The loss of a step in parts, by name, each a sum over classes; their sum is minimised.

        Args:
            network: The network of this step.
            real: Real images.
            synthetic: Synthetic images of the same classes; gradients go to these.
            num_classes: Number of classes C, whether or not they are all in the batch.
        """

    def train_network(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, augment: Callable[[Tensor, int], Tensor], seed: int
    ) -> None:
        """Take the network on to the next of its ``network_steps``; called between two of them.

        Args:
            network: The network, changed in place.
            images: All synthetic images, shape ``(N, C, H, W)``.
            labels: Their classes, shape ``(N,)``.
            augment: Called with a batch and its number since the beginning of this call; augments as in evaluation.
            seed: Of the order of the images.
        """
        raise NotImplementedError(f"{type(self).__name__} needs no trained network")


def with_gradients(terms: dict[str, Tensor], images: Tensor, gradients: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return terms of the same values, from which a backward pass gives the images these gradients of the sum.

    The gradient of each part of the images can then be taken while only its graph is in memory.

    Args:
        terms: Parts of the loss, without a graph.
        images: Shape ``(N, C, H, W)``.
        gradients: Gradient of the sum of the terms by the images, in pieces along N.
    """
    carrier = (images * torch.cat(list(gradients))).sum()
    first = next(iter(terms))
    return {**terms, first: terms[first] + (carrier - carrier.detach())}


def has_batch_statistics(network: nn.Module) -> bool:
    """Return whether an image's features depend on the other images of its batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
