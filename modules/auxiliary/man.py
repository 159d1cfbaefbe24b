"""MAN: a head that follows the next module's first block by a moving average of its weights."""

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
    """Momentum auxiliary network: in front of any head stands a copy of the next unit that follows it slowly.

    Paper: https://arxiv.org/abs/2407.05623. What it says and what its code does differ, and both are here:

    - "paper": one copy, which starts as the unit. It is trained by the local loss and then moved towards the unit's
      weights, both in each step. A bias for each channel is added to what it gives.
    - "released": two copies with weights of their own, whose outputs are added. One is trained, in the place of the
      bias; the other is not, and only follows.

    The average is of weights and biases, affine ones of normalisation included. Running statistics are not averaged:
    a copy has its own, and uses those of the batch in training.

    Args:
        head: What classifies, or reconstructs, what the copy gives; the paper uses `DGL` and `InfoPro`. None is `DGL`.
        momentum: Share of its weights that the copy keeps in each step, 0.995 in the paper: what it began with counts
            for half after 138 steps.
        rule: "released" or "paper". The first reads the unit's weights before the step, the second after it.

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
        # A copy inside a copy is of the unit behind it.
        self.kept_units = self.head.kept_units + isinstance(self.head, MAN)

    def build(self, cut: Cut) -> LocalHead:
        """The head behind one module."""
        if cut.unit + 1 == len(cut.units):
            raise InputError("MAN needs a unit to follow behind each module, but behind the last there is none")
        unit = cut.units[cut.unit + 1]
        check_copied(unit, "MAN")
        # Seen from its head, the copy is the unit.
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
    """A moving average of a unit, what is learnt beside it, and a head on the sum of both.

    Args:
        source: Names of the network's layers that are followed.
        average: Its moving average.
        bias: Adds to what the average gives.
        head: Trains by the sum.
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
        """Losses ``(N,)``."""
        followed = self.average(features)
        learnt = self.bias(followed if self.rule == "paper" else features)
        return self.head(followed + learnt if self.rule == "released" else learnt, batch)

    def before_step(self, network: nn.Module) -> None:
        """Follow the unit as it is before the step."""
        if self.rule == "released":
            self._follow(network)
        self.head.before_step(network)

    def after_step(self, network: nn.Module) -> None:
        """Follow the unit as it is after the step."""
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
    """Adds a learnt number to each channel.

    Args:
        channels: Number of channels.
        last: Whether they are the last dimension, else the second.
    """

    def __init__(self, channels: int, *, last: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.last = last

    def forward(self, features: Tensor) -> Tensor:
        """The features with the bias."""
        return features + (self.bias if self.last else self.bias[:, None, None])


@torch.no_grad()
def follow(average: Sequence[Tensor], source: Sequence[Tensor], *, momentum: float) -> None:
    """Move ``average`` towards ``source``, in place: momentum times the one plus the rest times the other."""
    moved = [value.to(own.dtype) for value, own in zip(source, average, strict=True)]
    torch._foreach_lerp_(list(average), moved, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]


def _same(module: nn.Module) -> nn.Module:
    """A trainable copy that starts with the same weights."""
    return copy.deepcopy(module).requires_grad_(True)
