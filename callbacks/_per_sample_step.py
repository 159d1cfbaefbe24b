"""Lets a module that knows nothing of sample weights take part: it returns its per-sample losses."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from ..modules.errors import InputError
from ..modules.sample_weighting import SampleWeighting


def check_module(pl_module: LightningModule, name: str, *, needs_losses: bool) -> None:
    """Refuse a module whose samples callback ``name`` cannot follow or, where it needs to, weight.

    Raises:
        InputError: If the module reads its batches itself, or optimizes by itself without `SampleWeighting`.
    """
    if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
        raise InputError(f"{name} cannot serve a training_step that takes dataloader_iter: let it take the batch")
    if needs_losses and not (isinstance(pl_module, SampleWeighting) or pl_module.automatic_optimization):
        raise InputError(
            f"{type(pl_module).__name__} optimizes manually, so {name} cannot weight its losses: mix in"
            " lightning_recipes.modules.sample_weighting.SampleWeighting and call self.reduce(losses)"
        )


def reduce_training_step(pl_module: LightningModule, weighting: SampleWeighting, name: str) -> None:
    """Replace ``training_step`` by one that reduces the losses ``(N,)`` it returns; `restore_training_step` undoes it.

    Args:
        pl_module: Its ``training_step`` returns the losses, or a dict that holds them as ``"loss"``.
        weighting: Reduces them, by the weights set on it.
        name: Of the callback, for messages.
    """
    step = pl_module.training_step

    # Not a method: copies of the module must not copy the callback, and with it the trainer.
    @functools.wraps(step)
    def reduced_step(*args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs)
        if output is None:
            return None
        losses = output.get("loss") if isinstance(output, Mapping) else output
        if not isinstance(losses, Tensor) or losses.ndim != 1:
            found = f"of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else f"{type(losses).__name__}"
            raise InputError(
                f"{name} needs one loss per sample, but {type(pl_module).__name__}.training_step returned a loss"
                f' {found}: return losses of shape (N,), or a dict with them as "loss" (loss functions take'
                ' reduction="none"), or mix in SampleWeighting and return self.reduce(losses)'
            )
        loss = weighting.reduce(losses)
        return {**output, "loss": loss} if isinstance(output, Mapping) else loss

    pl_module.training_step = reduced_step  # type: ignore[method-assign]


def restore_training_step(pl_module: LightningModule) -> None:
    """Undo `reduce_training_step`."""
    vars(pl_module).pop("training_step", None)
