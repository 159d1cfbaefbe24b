"""MAN: a head with a moving average of the next module's first unit."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.checks import check, one_of
from ..core.errors import InputError
from ..core.feature_maps import ToMaps
from ._base import Auxiliary, Cut, LocalBatch, LocalHead, check_auxiliary
from ._copies import check_copied, fresh_copy
from .dgl import DGL


class MAN(Auxiliary):
    """Momentum auxiliary network: any head on a copy of the next unit, which follows the unit by a moving average.

    Paper: https://arxiv.org/abs/2407.05623. The paper and its released code differ, and both are available:

    - "paper": one copy, initialized with the unit's weights. In every step the local loss trains it, and then it is
      moved towards the unit's weights. A learned bias per channel is added to its output.
    - "released": two copies with different weights, and the sum of their outputs. One copy is trained and takes the
      place of the bias. The other copy is not trained and only follows the unit.

    Weights and biases are averaged, including those in norm layers. Running statistics are not averaged: each copy has
    separate ones, and uses batch statistics in training.

    Args:
        head: Kind of head applied to the output of the copy. The paper uses `DGL` and `InfoPro`. None is `DGL`.
        momentum: Share of its weights that the copy keeps in each step, 0.995 in the paper. The initial weights then
            still contribute half after 138 steps.
        rule: "released" or "paper". "released" reads the unit's weights before the step, "paper" after it.

    Raises:
        InputError: If ``momentum`` is outside [0, 1], ``rule`` is unknown or ``head`` is no kind of head.
    """

    coupled = True

    def __init__(
        self,
        head: Auxiliary | None = None,
        *,
        momentum: float = 0.995,
        rule: Literal["released", "paper"] = "released",
    ) -> None:
        check(0 <= momentum <= 1, "momentum", momentum, "in [0, 1]")
        one_of(("released", "paper"), rule=rule)
        self.head = head if head is not None else DGL()
        check_auxiliary("head", self.head)
        self.momentum = momentum
        self.rule = rule
        # A nested MAN copies the unit after next.
        self.kept_units = self.head.kept_units + isinstance(self.head, MAN)

    def build(self, cut: Cut) -> LocalHead:
        """Build the head for one module."""
        if cut.unit + 1 == len(cut.units):
            raise InputError("MAN needs a unit to follow behind each module, but behind the last there is none")
        unit = cut.units[cut.unit + 1]
        check_copied(unit, "MAN")
        # For the inner head, the copy takes the place of the unit.
        head = self.head.build(dataclasses.replace(cut, unit=cut.unit + 1, features=unit.outputs))
        source = nn.Sequential(*unit)
        if self.rule == "paper":
            average = _same(source)
            maps = ToMaps(unit.outputs, channels_last=cut.channels_last)
            last = maps.channels_last or len(unit.outputs) != 4
            bias: nn.Module = ChannelBias(maps.channels, last=last)
        else:
            average, bias = fresh_copy(source).requires_grad_(False), fresh_copy(source)
        return MomentumHead(unit.layer_names, average, bias, head, momentum=self.momentum, rule=self.rule)


class MomentumHead(LocalHead):
    """Head on the sum of a unit's moving average and a learned term.

    Args:
        source: Names of the network's layers that the average follows.
        average: Moving average of these layers.
        bias: Learned term. With the rule "paper" it adds a bias to the average's output, with "released" it maps the
            features.
        head: Head applied to the sum.
        momentum: Share of its weights that the average keeps in each step.
        rule: "paper" or "released", see `MAN`.
    """

    def __init__(
        self, source: Sequence[str], average: nn.Module, bias: nn.Module, head: LocalHead, *, momentum: float, rule: str
    ) -> None:
        super().__init__()
        self.source = tuple(source)
        self.average = average
        self.bias = bias
        self.head = head
        self.momentum = momentum
        self.rule = rule

    def forward(self, features: Tensor, batch: LocalBatch) -> Tensor:
        """Return the losses ``(N,)``."""
        followed = self.average(features)
        learnt = self.bias(followed if self.rule == "paper" else features)
        return self.head(followed + learnt if self.rule == "released" else learnt, batch)

    def before_step(self, network: nn.Module) -> None:
        """Update the average with the unit's weights before the step, for the rule "released"."""
        if self.rule == "released":
            self._follow(network)
        self.head.before_step(network)

    def after_step(self, network: nn.Module) -> None:
        """Update the average with the unit's weights after the step, for the rule "paper"."""
        if self.rule == "paper":
            self._follow(network)
        self.head.after_step(network)

    def _follow(self, network: nn.Module) -> None:
        source = {
            f"{place}.{name}": parameter
            for place, layer in enumerate(self.source)
            for name, parameter in network.get_submodule(layer).named_parameters()
        }
        average = dict(self.average.named_parameters())
        if source.keys() != average.keys():
            raise InputError(
                f"MAN follows the layers {', '.join(self.source)}, but their parameters have other names than its copy"
                " has: change the network before it is given to LocalLearning"
            )
        follow(list(average.values()), [source[name] for name in average], momentum=self.momentum)


class ChannelBias(nn.Module):
    """Learned bias per channel.

    Args:
        channels: Number of channels.
        last: True if channels are the last dimension, False if they are the second.
    """

    def __init__(self, channels: int, *, last: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.last = last

    def forward(self, features: Tensor) -> Tensor:
        """Return the features plus the bias."""
        return features + (self.bias if self.last else self.bias[:, None, None])


@torch.no_grad()
def follow(average: Sequence[Tensor], source: Sequence[Tensor], *, momentum: float) -> None:
    """Move ``average`` towards ``source`` in place: ``momentum · average + (1 - momentum) · source``."""
    moved = [value.to(own.dtype) for value, own in zip(source, average, strict=True)]
    torch._foreach_lerp_(list(average), moved, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]


def _same(module: nn.Module) -> nn.Module:
    """Return a trainable copy with the same weights."""
    return copy.deepcopy(module).requires_grad_(True)
