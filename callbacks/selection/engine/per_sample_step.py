"""Support for modules that return per-sample losses from ``training_step``."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from ....modules.core.errors import InputError
from ....modules.sample_weighting import SampleWeighting


def reduce_training_step(pl_module: LightningModule, weighting: SampleWeighting, name: str, *, required: bool) -> None:
    """Wrap ``training_step`` so that the losses ``(N,)`` it returns are reduced; `restore_training_step` undoes it.

    Args:
        pl_module: Its ``training_step`` returns the losses, or a dict that holds them as ``"loss"`` and may hold the
            data set indices of the rows as ``"indices"``.
        weighting: Reduces the losses, with the weights set on it.
        name: Name of the callback, for messages.
        required: Whether a scalar loss is refused.
    """
    restore_training_step(pl_module)  # a module copied during a run is wrapped already
    own = vars(pl_module).get("training_step")
    step = own or type(pl_module).training_step
    original = weakref.ref(pl_module)

    @functools.wraps(step)
    def reduced_step(module: LightningModule, *args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs) if own else step(module, *args, **kwargs)
        if output is None or module is not original():
            return output
        losses = output.get("loss") if isinstance(output, Mapping) else output
        if isinstance(output, Mapping) and isinstance(output.get("indices"), Tensor):
            weighting.sample_indices = output["indices"]
        if not required and not (isinstance(losses, Tensor) and losses.ndim == 1 and len(losses) > 1):
            return output
        if not isinstance(losses, Tensor) or losses.ndim != 1:
            found = f"of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else f"{type(losses).__name__}"
            raise InputError(
                f"{name} needs one loss per sample, but {type(module).__name__}.training_step returned a loss"
                f' {found}: return losses of shape (N,), or a dict with them as "loss" (loss functions take'
                ' reduction="none"), or mix in SampleWeighting and return self.reduce(losses)'
            )
        loss = weighting.reduce(losses)
        return {**output, "loss": loss} if isinstance(output, Mapping) else loss

    setattr(reduced_step, _REPLACED, own)
    # A bound method, so that a copy of the module (made for weight averaging) gets a step bound to the copy.
    pl_module.training_step = types.MethodType(reduced_step, pl_module)  # type: ignore[method-assign]


def restore_training_step(pl_module: LightningModule) -> None:
    """Undo `reduce_training_step` if it was applied. A step set on the instance before comes back."""
    step = vars(pl_module).get("training_step")
    if hasattr(step, _REPLACED):
        del pl_module.training_step
        if (own := getattr(step, _REPLACED)) is not None:
            pl_module.training_step = own


_REPLACED = "_replaced_training_step"
