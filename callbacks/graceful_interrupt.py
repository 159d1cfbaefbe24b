"""Ctrl-C that loses nothing."""

from __future__ import annotations

import shlex
import signal
import threading
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class GracefulInterrupt(Callback):
    """On Ctrl-C, finishes the step (or the validation and the epoch) in progress, saves a checkpoint and ends the run.

    Training resumed from that checkpoint goes on bit for bit. A second Ctrl-C ends the run at once. In runs of
    several processes the signal reaches each at another step, so there Lightning's own handling stays in place and
    the last regular checkpoint is the one to resume from.

    Args:
        dirpath: Folder of ``interrupted.ckpt``.
        resume: Command to print, to which ``--ckpt_path FILE`` is added; empty prints the file alone.
    """

    def __init__(self, dirpath: str, resume: str = "") -> None:
        self.path = Path(dirpath) / "interrupted.ckpt"
        self.resume = resume
        self._asked = False
        self._previous: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Come last, so that the other callbacks have done their part of a step or an epoch when the run ends."""
        others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
        trainer.callbacks = [*others, self]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signal."""
        self._asked = False
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here unless a validation or the end of the epoch follows, where checkpoints are written too."""
        fetcher: Any = trainer.fit_loop._data_fetcher
        if not trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher):
            self._stop_within_epoch(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop here if the epoch goes on after this validation."""
        if not trainer.sanity_checking:
            self._stop_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop here unless the run is over anyway."""
        if trainer.current_epoch + 1 != trainer.max_epochs:
            self._stop_if_asked(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say how to go on."""
        if isinstance(exception, KeyboardInterrupt):
            last = str(getattr(trainer.checkpoint_callback, "last_model_path", ""))
            checkpoint = str(self.path) if self._asked and self.path.exists() else last
            if checkpoint:
                command = f"{self.resume} --ckpt_path {shlex.quote(checkpoint)}".lstrip()
                rank_zero_info(f"Interrupted. To go on: {command}")
            else:
                rank_zero_info("Interrupted before a checkpoint had been written.")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signal back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _ask(self, signum: int, frame: Any) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        rank_zero_info("\nCtrl-C: saving a checkpoint after this step; press again to stop at once.")

    def _stop_within_epoch(self, trainer: Trainer) -> None:
        # A checkpoint does not hold gradients that are being accumulated.
        if not trainer.is_last_batch and not trainer.fit_loop._should_accumulate():
            self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._asked and trainer.global_step != trainer.max_steps:
            trainer.save_checkpoint(self.path, weights_only=False)
            raise KeyboardInterrupt
