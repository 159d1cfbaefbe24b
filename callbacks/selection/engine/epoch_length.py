"""Corrections of Lightning's counts for epochs of different length."""

from __future__ import annotations

import math
import warnings

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn


def share_done(trainer: Trainer, epoch: int, *, first_step: int, batches: int) -> float:
    """Return the share of the run that is over after an epoch.

    Args:
        trainer: Its ``max_epochs`` and ``max_steps`` end the run.
        epoch: The epoch.
        first_step: Optimizer steps before the epoch.
        batches: Batches in the epoch.
    """
    shares = [0.0]
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        shares.append((epoch + 1) / trainer.max_epochs)
    if trainer.max_steps > 0:
        shares.append((first_step + math.ceil(batches / trainer.accumulate_grad_batches)) / trainer.max_steps)
    return max(shares)


def catch_up_schedules(trainer: Trainer, pl_module: LightningModule, *, batch: int, batches: int, full: int) -> None:
    """Advance step-wise schedules as often as in an epoch with every sample, spread evenly over the shorter epoch.

    Schedules are made for the steps of a run with all samples (`Trainer.estimated_stepping_batches`). In a shorter run
    they would stop early, so the missing scheduler steps are added evenly. The rate then depends on the finished share
    of the epoch, as in the InfoBatch authors' code.

    Args:
        trainer: The trainer, after the batch.
        pl_module: Its ``lr_scheduler_step`` is used.
        batch: Finished batches in this epoch, from 1.
        batches: Batches in this epoch.
        full: Batches in an epoch with every sample.
    """
    if batches == full or not pl_module.automatic_optimization:
        return
    every = trainer.accumulate_grad_batches
    if batch % every and batch != batches:
        return
    if 0 < trainer.max_steps < math.ceil(full / every) * max(trainer.max_epochs or 0, 0) or trainer.max_epochs == -1:
        return  # max_steps ends the run, so schedules are made for that many steps
    for config in trainer.lr_scheduler_configs:
        if config.interval != "step" or config.reduce_on_plateau:
            continue

        def steps(done: int, of: int, frequency: int = config.frequency) -> int:
            """Return the number of scheduler steps in the first ``done`` of ``of`` batches of an epoch."""
            ends_short = done == of and bool(done % every) and not done % frequency
            return done // math.lcm(every, frequency) + ends_short

        total, here, done = steps(full, full), steps(batches, batches), steps(batch, batches)
        missing = 0
        if not here:
            # The epoch is too short for Lightning to step the schedule at all.
            missing = total if batch == batches else 0
        elif batch % config.frequency == 0:
            missing = done * total // here - (done - 1) * total // here - 1
        for _ in range(missing):
            pl_module.lr_scheduler_step(config.scheduler, None)


def warn_of_own_schedules(trainer: Trainer, pl_module: LightningModule, name: str) -> None:
    """Warn of schedules that may not reach their end because epochs are shorter.

    Args:
        trainer: The trainer.
        pl_module: A module that steps its schedules itself may step them by ``global_step``.
        name: Name of the callback.
    """
    by_step = any(config.interval == "step" for config in trainer.lr_scheduler_configs)
    manual = not pl_module.automatic_optimization and bool(trainer.lr_scheduler_configs)
    overridden = type(pl_module).lr_scheduler_step is not LightningModule.lr_scheduler_step
    if manual or (by_step and overridden):
        rank_zero_warn(
            f"{type(pl_module).__name__} steps its schedules itself, and {name} leaves optimizer steps out: a schedule"
            " that follows global_step, or is stepped under manual optimization, stops before its end. Compute it from"
            " the share of the epochs that is done, or from the number of calls of lr_scheduler_step"
        )


def hide_resumable_warning() -> None:
    """Hide Lightning's warning that the loader cannot resume within an epoch, as this loader can."""
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
