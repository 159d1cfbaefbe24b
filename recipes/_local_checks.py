"""Checks of local learning: where a network is cut, and support for steps per module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..modules.core.checks import at_least
from ..modules.core.errors import InputError
from ..modules.partition.cuts import Partition


def last_units(parts: Partition, num_modules: int | None, units_per_module: int, kept: int) -> list[int]:
    """Return the last unit of every module except the last module.

    Args:
        parts: The network's units.
        num_modules: Number of modules with equally many units, or None. The stem counts as a unit, also if it is part
            of the first unit the user named.
        units_per_module: Units per module (except the last), if ``num_modules`` is None.
        kept: Number of units at the end that then stay in one module.

    Raises:
        InputError: If there are too few units.
    """
    units = len(parts.units)
    if num_modules is not None:
        if not 1 <= num_modules <= units:
            raise InputError(f"num_modules must lie in 1..{units}, the units of the network, but is {num_modules}")
        merged = int(parts.stem_in_first)
        return [-(-(units + merged) * module // num_modules) - 1 - merged for module in range(1, num_modules)]
    at_least(1, units_per_module=units_per_module)
    last = list(range(units_per_module - 1, units - kept, units_per_module))
    if not last:
        raise InputError(
            f"the network has {units} units, of which the last {kept} stay together, so no cut is left: lower the depth"
            f" of the heads or units_per_module ({units_per_module}), or give num_modules, or name more units"
        )
    return last


def check_stepping_apart(optimizer: Callable[[Any], torch.optim.Optimizer], objective: nn.Module) -> None:
    """Refuse, for ``step_per_module``, an optimizer or objective that shares state between modules.

    The optimizer is tested on two parameters: separate steps must give the same result as a joint step.

    Raises:
        InputError: If optimizer or objective share state, or the optimizer cannot be tested.
    """
    if any(parameter.requires_grad for parameter in objective.parameters()):
        raise InputError(
            f"step_per_module does not go with {type(objective).__name__}, as all modules train its parameters: leave"
            " step_per_module out"
        )
    name = "the optimizer"
    try:
        with torch.random.fork_rng([]):
            results = []
            for apart in (False, True):
                tried = [torch.full(shape, 0.5, device="cpu").requires_grad_() for shape in ((3, 4), (2, 3))]
                stepping = optimizer(tried)
                name = type(stepping).__name__
                _step(stepping, [[parameter] for parameter in tried] if apart else [tried])
                results.append(tried)
    except Exception as error:  # an optimizer may raise any exception
        raise InputError(f"step_per_module could not be tried with {name}: {error}") from error
    if not all(torch.equal(*pair) for pair in zip(*results, strict=True)):
        raise InputError(
            f"step_per_module does not go with {name}, which counts its steps or looks at all gradients at once: choose"
            " another optimizer, e.g. SGD or AdamW, or leave step_per_module out"
        )


def _step(optimizer: torch.optim.Optimizer, groups: Sequence[Sequence[Tensor]]) -> None:
    """Step on each group of parameters in turn, 64 times, with gradients scaled by factors from 0.01 to 100."""
    for step in range(64):
        for parameters in groups:
            for parameter in parameters:
                slope = torch.linspace(-1.0, 2.0, parameter.numel()).view_as(parameter)
                parameter.grad = slope * 10.0 ** (step % 5 - 2)
            optimizer.step()
            optimizer.zero_grad()


def check_pixels(images: Tensor, mean: Tensor, std: Tensor) -> None:
    """Refuse a batch outside [0, 1] after undoing the normalization; for heads that reconstruct pixels.

    Args:
        images: Shape ``(N, C, H, W)``.
        mean: Channel means, shape ``(C, 1, 1)``.
        std: Channel standard deviations, shape ``(C, 1, 1)``.

    Raises:
        InputError: If more than a tenth of the values are outside by more than 0.05. The tolerance allows rounded
            statistics, and augmentation that puts noise into a part of an image.
    """
    pixels = images * std + mean
    outside = float(((pixels < -0.05) | (pixels > 1.05)).float().mean())
    if outside > 0.1:
        raise InputError(
            f"the heads rebuild pixels in [0, 1], but {outside:.0%} of a batch lie outside: set mean"
            f" {mean.flatten().tolist()} and std {std.flatten().tolist()} to the data's,"
            " or cut off pixels that leave the range themselves (--data.clip true of DistilledImages)"
        )


def check_trainer_for_steps(trainer: Trainer, network: nn.Module) -> None:
    """Refuse, for ``step_per_module``, a trainer that needs all gradients at once or skips steps.

    Raises:
        InputError: If the trainer is unsuitable.
    """
    if trainer.accumulate_grad_batches > 1 or str(trainer.precision) == "16-mixed":
        raise InputError(
            "step_per_module does not go with accumulate_grad_batches or precision 16-mixed, which look at all"
            " gradients at once: leave one of them out"
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if _looks_at_gradients(callback):
            raise InputError(
                f"step_per_module does not go with {type(callback).__name__}, which looks at all gradients before the"
                " step: leave one of them out"
            )
        if isinstance(callback, StochasticWeightAveraging) and any(
            isinstance(m, _BatchNorm) for m in network.modules()
        ):
            raise InputError(
                f"step_per_module does not go with {type(callback).__name__} and batch normalization, whose statistics"
                " it takes in an epoch without steps: leave one of them out"
            )


def _looks_at_gradients(callback: Callback) -> bool:
    """Return whether a callback acts between the backward pass and the step."""
    hooks = ("on_after_backward", "on_before_optimizer_step")
    overridden = any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)
    return overridden or isinstance(callback, GradientAccumulationScheduler)
