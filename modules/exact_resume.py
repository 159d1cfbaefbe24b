"""Exact resume: a run that continues from a checkpoint equals the uninterrupted run."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from . import lightning_private
from .core.errors import InputError


class ExactResume(Callback):
    """Callback that tracks the position of a run and restores state that Lightning loses on resume.

    Without it, Lightning skips the validation and the end of an epoch that are due at a checkpoint. It skips a step of
    `ReduceLROnPlateau` at each resume, and treats an epoch cut short by ``max_steps`` or ``max_time`` as a whole one.
    It also loses logged values, `GradientAccumulationScheduler` within an epoch and the decision of `EarlyStopping`.
    With this callback a checkpoint can be written in any hook after a step, after a validation, or at the end of an
    epoch. The states of the global generators, which dropout uses, are restored too.

    Our recipes, datamodules and selecting callbacks add this callback; other projects add it to their Trainer.

    Attributes:
        epoch: Current epoch, or the last one between two epochs.
        batches: Number of finished batches of this epoch.

    Raises:
        InputError: If a resume within an epoch cannot be exact, as with `StochasticWeightAveraging` and
            ``overfit_batches``; if ``max_time`` is used up; or if the optimizer or the learning-rate schedule has
            another class than in the checkpoint.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.epoch = 0
        self.batches = 0
        self._is_whole = False  # the epoch has all its batches
        self._point = "start"  # start, batch, validation, validated, epoch_end, run_end
        self._restored: dict[str, Any] | None = None
        self._random_state: dict[str, Any] | None = None
        self._has_lost_accumulation = False
        self._optimization: dict[str, list[Any]] = {}  # optimizers and schedules as they were configured
        self._has_no_step_left = False  # but an epoch to end

    @staticmethod
    def attach(trainer: Trainer) -> ExactResume:
        """Return the trainer's callback of this class; if there is none, add one before all other callbacks."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, ExactResume):
                return callback
        trainer.callbacks = [ExactResume(), *callbacks]  # type: ignore[attr-defined]
        return trainer.callbacks[0]  # type: ignore[attr-defined]

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and number of finished batches from which the data continues."""
        return (self.epoch + 1, 0) if self._is_whole else (self.epoch, self.batches)

    # -- how far the run is ------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move to the first place, so that the other callbacks see the current position."""
        if stage == "fit":
            others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
            trainer.callbacks = [self, *others]  # type: ignore[attr-defined]
            self._begin()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start an epoch."""
        self.epoch, self.batches, self._is_whole, self._point = trainer.current_epoch, 0, False, "start"

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restore the gradient accumulation of a resumed epoch."""
        if self._has_lost_accumulation:
            self._has_lost_accumulation = False
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, GradientAccumulationScheduler):
                    callback.on_train_epoch_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch."""
        self.batches += 1
        self._is_whole = lightning_private.has_read_whole_epoch(trainer)
        self._point = "batch"

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the position."""
        if not trainer.sanity_checking:
            self._point = "validation"

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the position."""
        if not trainer.sanity_checking:
            self._point = "validated"

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the position, and let Lightning end a resumed epoch like any other."""
        self._point = "epoch_end"
        lightning_private.stop_restarting(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the position."""
        self._point = "run_end"

    # -- resume ------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the position of the run, unless this fit has read no batches."""
        if not lightning_private.has_begun_reading(trainer):
            return
        checkpoint[_RANDOM] = {"cpu": torch.get_rng_state()}
        if pl_module.device.type == "cuda":
            checkpoint[_RANDOM]["cuda"] = torch.cuda.get_rng_state(pl_module.device)
        checkpoint[_KEY] = {
            "epoch": self.epoch,
            "batches": self.batches,
            "optimization": self._optimization,
            "is_whole": self._is_whole,
            "point": self._point,
            "validation_is_due": self._point in ("batch", "validation") and _validation_is_due(trainer),
            "gradients_are_lost": self._point in ("batch", "validated") and lightning_private.is_accumulating(trainer),
            "metrics": {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()},
            "log_step": lightning_private.logged_steps(trainer) - int(self._point == "epoch_end"),
            "to_log": lightning_private.metrics_to_log(trainer) if self._point in ("batch", "epoch_end") else {},
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the position from a checkpoint, and set Lightning's counters.

        Raises:
            InputError: If the run cannot resume within an epoch.
        """
        self._random_state = checkpoint.get(_RANDOM)
        position = checkpoint.get(_KEY)
        if position is None or trainer.state.fn != "fit":
            return
        self._restored = dict(position)
        self.epoch, self.batches, self._is_whole = (position[name] for name in ("epoch", "batches", "is_whole"))
        self._point = position["point"]
        if self._is_within_epoch():
            _check_resumable(trainer, self.epoch, self.batches)
        if position["gradients_are_lost"]:
            rank_zero_warn(
                f"the checkpoint was written after batch {self.batches} of epoch {self.epoch}, between two optimizer"
                " steps: the gradients added up so far are lost"
            )
        self._move_loops(checkpoint["loops"]["fit_loop"])
        is_ended = self._is_over() or self._point in ("epoch_end", "run_end")
        self._has_no_step_left = not is_ended and checkpoint["global_step"] == trainer.max_steps
        if self._has_no_step_left:
            lightning_private.end_epoch_after_max_steps(trainer, self.epoch)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the values that were due after the checkpoint, even if nothing is left to train.

        Raises:
            InputError: If ``max_time`` is used up already, or the optimizer or schedule has another class.
        """
        self._optimization = _optimization(trainer)
        if self._restored is None:
            return
        _check_optimization(self._restored.get("optimization", {}), self._optimization)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            left = callback.time_remaining() if isinstance(callback, Timer) else None
            if left is not None and left <= 0:
                raise InputError(
                    f"max_time: the run that goes on has trained for {callback.time_elapsed():.0f} s, which is all of"
                    " it: give a longer max_time, which is that of the whole run"
                )
        if self._restored["to_log"]:
            row = {**self._restored["to_log"], "epoch": self.epoch}
            lightning_private.log_row(trainer, row, step=self._restored["log_step"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Catch up on all that was due at the checkpoint, and restore the random generators."""
        state, self._random_state = self._random_state, None
        if state is not None:
            torch.set_rng_state(state["cpu"].cpu())
            if "cuda" in state and pl_module.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda"].cpu(), pl_module.device)
        position, self._restored = self._restored, None
        if position is None:
            return
        lightning_private.restore_callback_metrics(trainer, position["metrics"])
        self._has_lost_accumulation = not self._is_over()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint):
                # Otherwise it saves again after the next batch, when gradients may be partly accumulated.
                lightning_private.mark_as_saved(callback, trainer.global_step)
        if self._is_over():
            lightning_private.stop_restarting(trainer)
            if self._point == "epoch_end":
                _step_plateau_schedules(trainer, pl_module, self.epoch)
            _stop_if_stopped(trainer, self.epoch)
        elif not position["validation_is_due"]:
            if self._point != "epoch_end":
                trainer.fit_loop.epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
            if self._is_whole or self._has_no_step_left:
                lightning_private.skip_validation(trainer)

    def _is_within_epoch(self) -> bool:
        """Return whether batches are left in the epoch."""
        return self.batches > 0 and not self._is_whole

    def _is_over(self) -> bool:
        """Return whether the next step begins a new epoch."""
        return self.batches == 0 or (self._is_whole and self._point in ("epoch_end", "run_end"))

    def _move_loops(self, loops: dict[str, Any]) -> None:
        """Set Lightning's counters in a checkpoint to a state from which Lightning resumes correctly."""
        assert self._restored is not None
        over, due = self._is_over(), self._restored["validation_is_due"]
        ended = self.epoch + int(over and self.batches > 0)
        _set(loops["epoch_progress"], begun=ended + int(not over), processed=ended)
        batches = loops["epoch_loop.batch_progress"]
        # If more batches follow, Lightning itself completes the last one.
        open_batches = int(not over and not due and not self._is_whole)
        done = {"total": batches["total"]["processed"], "current": 0 if over else self.batches}
        for name, count in done.items():
            batches[name] |= {"ready": count, "started": count, "processed": count, "completed": count - open_batches}
        batches["is_last_batch"] = self._is_whole and not over
        # A validation that is due counts as begun, and Lightning runs it from its first batch.
        _set(loops["epoch_loop.val_loop.batch_progress"], begun=int(due), processed=0)
        if not over and not due:
            counted = self._point == "epoch_end"
            state = loops["epoch_loop.state_dict"]
            state["_batches_that_stepped"] += int(self._is_whole and not counted) - int(counted and not self._is_whole)


_KEY = "lightning_recipes.position"
_RANDOM = "random_state"


def _set(progress: dict[str, Any], *, begun: int, processed: int) -> None:
    for counts in (progress["total"], progress["current"]):
        counts |= {"ready": begun, "started": begun, "processed": processed, "completed": processed}


def _validation_is_due(trainer: Trainer) -> bool:
    """Return whether validation follows the last batch, in a run that is not about to stop."""
    stops, trainer.should_stop = trainer.should_stop, False
    try:
        return lightning_private.is_validation_due(trainer)
    finally:
        trainer.should_stop = stops


def _step_plateau_schedules(trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
    """Step the plateau schedules, which Lightning does after it writes the checkpoints of an epoch."""
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.interval == "epoch" and (epoch + 1) % config.frequency == 0:
            value = trainer.callback_metrics.get(str(config.monitor))
            if value is not None:
                pl_module.lr_scheduler_step(config.scheduler, value)


def _stop_if_stopped(trainer: Trainer, epoch: int) -> None:
    """Stop a run if `EarlyStopping` had stopped it at the end of this epoch."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and (
            callback.wait_count >= callback.patience or 0 < callback.stopped_epoch == epoch
        ):
            rank_zero_info(f"EarlyStopping had ended this run at epoch {epoch}: nothing is left to train")
            trainer.should_stop = True


def _check_resumable(trainer: Trainer, epoch: int, batches: int) -> None:
    place = f"the checkpoint was written after batch {batches} of epoch {epoch}, within which"
    way_out = "take a checkpoint of the end of an epoch"
    if any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks):  # type: ignore
        raise InputError(f"{place} StochasticWeightAveraging cannot go on: {way_out}")
    if trainer.overfit_batches:  # type: ignore[attr-defined]
        raise InputError(f"{place} a run with overfit_batches cannot go on: {way_out}")


def _optimization(trainer: Trainer) -> dict[str, list[Any]]:
    """Return the classes of optimizers and schedules, and the options of each group of parameters."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return {
        "optimizers": [type(optimizer).__name__ for optimizer in trainer.optimizers],
        "schedules": [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs],
        # A schedule moves the rate before the first step; the rate that was asked for is kept under another name.
        "options": [{**_options(group), "lr": group.get("initial_lr", group.get("lr"))} for group in groups],
    }


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in group.items()
        if isinstance(value, (bool, int, float, tuple)) and name != "initial_lr"
    }


def _check_optimization(before: dict[str, list[Any]], now: dict[str, list[Any]]) -> None:
    """Refuse the state of another optimizer or schedule, and name options that the checkpoint's replace."""
    for kind, name in (("optimizers", "optimizer"), ("schedules", "lr_scheduler")):
        was, given = (" and ".join(part.get(kind, [])) for part in (before, now))
        if was and given and was != given:
            raise InputError(
                f"{name} {given} cannot go on from the checkpoint, whose {name} is {was}: keep that of the run, or"
                " start a new run from the weights alone"
            )
        if before and was != given:
            rank_zero_warn(f"{name} {given or 'null'} is not that of the checkpoint, {was or 'null'}")
    options = zip(before.get("options", []), now["options"], strict=False)
    replaced = [
        f"{key} {value} by {old[key]}"
        for old, new in options
        for key, value in new.items()
        if key in old and old[key] != value
    ]
    if replaced:
        rank_zero_warn(
            f"the optimizer goes on as in the checkpoint, which replaces {', '.join(dict.fromkeys(replaced))}"
        )
