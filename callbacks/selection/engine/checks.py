"""Checks of the arguments and the run for data selection."""

from __future__ import annotations

import inspect
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from ....modules.core.checks import check
from ....modules.core.errors import InputError
from ....modules.sample_weighting import SampleWeighting


def check_prune_ratio(prune_ratio: float) -> None:
    """Refuse a share outside [0, 1)."""
    check(0 <= prune_ratio < 1, "prune_ratio", prune_ratio, "in [0, 1)")


def check_delta(delta: float) -> None:
    """Refuse a share of the run outside [0, 1]."""
    check(0 <= delta <= 1, "delta", delta, "in [0, 1]")


def check_run(selection: Any, kind: type, trainer: Trainer, pl_module: LightningModule) -> None:
    """Refuse a run that a selection callback does not support. The training loader is checked later, when it exists.

    Args:
        selection: The callback.
        kind: Class of all selection callbacks; a trainer may have only one of them.
        trainer: The trainer.
        pl_module: The module to train.

    Raises:
        InputError: If another callback or the module selects samples too, or the rule needs a run of known length. Also
            if the module reads its batches itself, or optimizes manually without `SampleWeighting`.
    """
    name, module_name = type(selection).__name__, type(pl_module).__name__
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    if getattr(pl_module, "chooses_samples", False):
        raise InputError(f"{module_name} draws its training samples itself, so {name} cannot choose them: leave it out")
    others = [type(other).__name__ for other in callbacks if isinstance(other, kind) and other is not selection]
    if others:
        raise InputError(f"{name} and {others[0]} both choose the training samples: keep one of them")
    if selection.needs_run_length and trainer.max_epochs == -1 and trainer.max_steps == -1:
        raise InputError(f"{name} must know when the run ends, but max_epochs and max_steps are -1: set one of them")
    if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
        raise InputError(f"{name} cannot serve a training_step that takes dataloader_iter: let it take the batch")
    if selection.needs_losses and not (isinstance(pl_module, SampleWeighting) or pl_module.automatic_optimization):
        raise InputError(
            f"{module_name} optimizes manually, so {name} cannot weight its losses: mix in"
            " lightning_recipes.modules.sample_weighting.SampleWeighting and call self.reduce(losses)"
        )


def check_size(name: str, known: int, size: int) -> None:
    """Refuse to resume with a different number of training samples."""
    if known != size:
        raise InputError(
            f"{name} has scores of {known} samples but there are {size} training samples now: resume with the data of"
            " the checkpoint, or start a new run"
        )


def check_resumed(name: str, was: list[int] | None, now: list[int]) -> None:
    """Refuse to resume within an epoch that has changed since the checkpoint.

    Args:
        name: Name of the callback.
        was: Seed, number of selected samples and samples per step at the checkpoint; None at the end of an epoch.
        now: The same values now.
    """
    if was is not None and was != now:
        raise InputError(
            f"the checkpoint lies within an epoch of {name} with (seed, samples selected, samples a step) {tuple(was)},"
            f" which now are {tuple(now)}: resume with the arguments it was made with, or from the end of an epoch"
        )


def check_order(name: str, moved: str | None) -> None:
    """Refuse batches with rows in an unknown order.

    Args:
        name: Name of the callback.
        moved: The step that changes the order; None if there is none.
    """
    if moved is not None:
        raise InputError(
            f"{name} must know which sample each row of a batch is, but {moved} changes their order: keep the order,"
            " sort the list of samples in place in the collate function, or let the data set give each sample's index"
            ' and the training step name it, as self.sample_indices before self.reduce(losses) or as "indices" in the'
            " dict it returns"
        )
