"""The contract between local learning and what trains each of its modules."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..core.errors import InputError
from ..partition.cuts import LocalUnit, Partition


@dataclass(frozen=True)
class Cut:
    """Position of an auxiliary head: the end of one module of the network."""

    index: int
    """The module, from 0."""
    count: int
    """Number of heads, one less than modules."""
    unit: int
    """The module's last unit, from 0."""
    partition: Partition
    inputs: tuple[int, ...]
    """Shape of the module's input, batch included."""
    features: tuple[int, ...]
    """Shape of what the head gets, batch included."""
    num_classes: int
    in_chans: int
    image_size: int
    channels_last: bool = False
    """Whether the network keeps the channels of feature maps behind height and width, as Swin does."""

    @property
    def units(self) -> list[LocalUnit]:
        """All units of the network."""
        return self.partition.units

    def share(self) -> float:
        """Depth in the network, from 0 for the first head to 1 for the last."""
        return self.index / (self.count - 1) if self.count > 1 else 0.0


@dataclass(frozen=True)
class LocalBatch:
    """The data of a batch that an auxiliary head gets in addition to its features."""

    classify: Callable[[Tensor], Tensor]
    """From logits ``(N, C)`` to losses ``(N,)``, by the run's objective."""
    labels: Tensor
    """Class indices ``(N,)`` or probabilities ``(N, C)``."""
    images: Tensor
    """The images ``(N, C, H, W)`` as the network sees them."""
    pixels: Callable[[], Tensor]
    """The images in [0, 1]."""
    inputs: Tensor
    """The input of the module, detached."""


class LocalHead(nn.Module):
    """Trains one module: maps its features to a loss per sample. It is no part of the deployed network."""

    reads_pixels: bool = False
    """Whether it reads the images in [0, 1], for which the recipe must know the data's mean and std."""

    reads_inputs: bool = False
    """Whether it reads the module's input, which is kept from layers that work in place then."""

    def forward(self, features: Tensor, batch: LocalBatch) -> Tensor:
        """Losses ``(N,)`` of the module's features.

        Args:
            features: What the module gave, with its gradient.
            batch: What else is known.
        """
        raise NotImplementedError

    def before_step(self, network: nn.Module) -> None:
        """Called before each step of the optimizer, with the gradients there; nothing by default.

        Args:
            network: The network that is trained. Heads keep the names of its layers, as its layers may be replaced.
        """

    def after_step(self, network: nn.Module) -> None:
        """Called after each step of the optimizer; nothing by default.

        Args:
            network: As for `before_step`.
        """


class Auxiliary(ABC):
    """Base of the kinds of local heads: builds one head for each module but the last."""

    kept_units: int = 1
    """Units at the end that stay together with the classifier where the network is cut after every unit."""

    coupled: bool = False
    """Whether a head reads the weights of other modules, so that modules cannot step one after the other."""

    @abstractmethod
    def build(self, cut: Cut) -> LocalHead:
        """A new head.

        Args:
            cut: Where it stands.

        Raises:
            InputError: If this kind of head cannot stand there.
        """


def check_auxiliary(name: str, value: Any) -> None:
    """Refuse what is no kind of head.

    Raises:
        InputError: If ``value``, given as argument ``name``, is none.
    """
    if not isinstance(value, Auxiliary):
        raise InputError(f"{name} must be a kind of head, e.g. AugLocal(), but is {value!r}")


def first_and_last(name: str, values: Any) -> tuple[float, float]:
    """Return the weights of the first head and the last, finite and not negative; one number is both.

    Raises:
        InputError: If ``values``, given as argument ``name``, are something else.
    """
    pair = tuple(values) if isinstance(values, (tuple, list)) else (values, values)
    if len(pair) != 2 or not all(isinstance(value, (int, float)) and 0 <= value < math.inf for value in pair):
        raise InputError(
            f"{name} must be one number, or two for the first and the last head, at least 0, but is {values!r}"
        )
    return pair
