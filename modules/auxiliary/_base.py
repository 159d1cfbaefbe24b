"""Base classes of local-learning heads."""

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
    """Position of a head: the output of one module of the network."""

    index: int
    """Index of the module, from 0."""
    count: int
    """Number of heads, one less than the number of modules."""
    unit: int
    """Index of the module's last unit, from 0."""
    partition: Partition
    inputs: tuple[int, ...]
    """Shape of the module's input, including the batch."""
    features: tuple[int, ...]
    """Shape of the head's input, including the batch."""
    num_classes: int
    in_chans: int
    image_size: int
    channels_last: bool = False
    """True if the network's feature maps are ``(N, h, w, C)``, as in Swin."""

    @property
    def units(self) -> list[LocalUnit]:
        """All units of the network."""
        return self.partition.units

    def share(self) -> float:
        """Return the position of the head in the network, from 0 for the first head to 1 for the last."""
        return self.index / (self.count - 1) if self.count > 1 else 0.0


@dataclass(frozen=True)
class LocalBatch:
    """Inputs of a head other than the features."""

    classify: Callable[[Tensor], Tensor]
    """The run's objective: maps logits ``(N, C)`` to losses ``(N,)``."""
    labels: Tensor
    """Class indices ``(N,)`` or probabilities ``(N, C)``."""
    images: Tensor
    """The images ``(N, C, H, W)`` that the network gets."""
    pixels: Callable[[], Tensor]
    """The images in [0, 1]."""
    inputs: Tensor
    """The module's input, detached."""


class LocalHead(nn.Module):
    """Auxiliary network that trains one module: it maps the module's features to one loss per sample.

    It is not part of the deployed network.
    """

    reads_pixels: bool = False
    """True if the head needs the images in [0, 1]; the recipe must then know the data's mean and std."""

    reads_inputs: bool = False
    """True if the head needs the module's input; the input is then protected from in-place layers."""

    def forward(self, features: Tensor, batch: LocalBatch) -> Tensor:
        """Return the losses ``(N,)``.

        Args:
            features: Output of the module, with gradient.
            batch: The other inputs of the head.
        """
        raise NotImplementedError

    def before_step(self, network: nn.Module) -> None:
        """Run before each optimizer step, with gradients available; does nothing by default.

        Args:
            network: The trained network. Heads store names of its layers, because the layers may be replaced.
        """

    def after_step(self, network: nn.Module) -> None:
        """Run after each optimizer step; does nothing by default.

        Args:
            network: As in `before_step`.
        """


class Auxiliary(ABC):
    """Base class of the kinds of local heads. It builds one head for every module except the last."""

    kept_units: int = 1
    """Number of last units that stay with the classifier if the network is cut after every unit."""

    coupled: bool = False
    """True if a head reads the weights of other modules; modules then cannot step one after the other."""

    @abstractmethod
    def build(self, cut: Cut) -> LocalHead:
        """Build a new head.

        Args:
            cut: Position of the head.

        Raises:
            InputError: If this kind of head does not fit there.
        """


def check_auxiliary(name: str, value: Any) -> None:
    """Raise an error for a value that is no kind of head.

    Raises:
        InputError: If ``value``, given as argument ``name``, is no `Auxiliary`.
    """
    if not isinstance(value, Auxiliary):
        raise InputError(f"{name} must be a kind of head, e.g. AugLocal(), but is {value!r}")


def first_and_last(name: str, values: Any) -> tuple[float, float]:
    """Return the weights of the first and the last head, finite and at least 0; one number gives both.

    Raises:
        InputError: If ``values``, given as argument ``name``, are something else.
    """
    pair = tuple(values) if isinstance(values, (tuple, list)) else (values, values)
    if len(pair) != 2 or not all(isinstance(value, (int, float)) and 0 <= value < math.inf for value in pair):
        raise InputError(
            f"{name} must be one number, or two for the first and the last head, at least 0, but is {values!r}"
        )
    return pair
