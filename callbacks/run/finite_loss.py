"""Stop a run at the first loss that is not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ...modules.core.checks import at_least
from ...modules.core.errors import RunError


class FiniteLoss(Callback):
    """Ends a run when the training loss is NaN or infinite, before a checkpoint is written.

    Losses stay on their device. They are read together every ``every_n_steps`` steps, at the end of an epoch and
    before anything is saved. Single steps therefore do not wait for the device.

    If ``training_step`` returns no loss, as in manual optimization, the module's ``sample_losses`` are checked instead.
    If there are none, only the weights are checked, before they are saved.

    Args:
        every_n_steps: Steps between two checks.

    Raises:
        InputError: If ``every_n_steps`` is less than 1.
        RunError: At the first loss that is not finite; the message names its step.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        at_least(1, every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._losses: dict[int, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        self._losses = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the number of the step, counted from 0 as in the logs."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is None:
            loss = getattr(pl_module, "sample_losses", None)
        if not isinstance(loss, Tensor):
            return
        # Accumulated micro-batches share a step number. Add their losses, so that a later one cannot hide a NaN.
        loss = loss.detach().sum() if loss.ndim else loss.detach()
        known = self._losses.get(self._step)
        self._losses[self._step] = loss if known is None else known + loss
        if trainer.global_step % self.every_n_steps == 0:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before the epoch's checkpoint is written."""
        self._check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before time is spent on validation."""
        self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check losses and weights before a checkpoint is written: a finite loss can have infinite gradients."""
        self._check(trainer)
        finite = [p.isfinite().all() for p in pl_module.parameters() if p.requires_grad]
        if finite and not torch.stack(finite).all():
            raise self._error(trainer, f"weights are not finite after step {trainer.global_step - 1}")

    def _check(self, trainer: Trainer) -> None:
        losses, self._losses = self._losses, {}
        if not losses:
            return
        finite = torch.stack(list(losses.values())).isfinite().tolist()
        if not all(finite):
            step = list(losses)[finite.index(False)]
            raise self._error(trainer, f"the training loss was not finite at step {step}")

    @staticmethod
    def _error(trainer: Trainer, problem: str) -> RunError:
        kept = _newest_checkpoint(trainer.checkpoint_callback)
        return RunError(
            f"{problem} (epoch {trainer.current_epoch})."
            + (f" The last good checkpoint is {kept}." if kept else " No checkpoint had been written yet.")
            + " Try a lower learning rate, gradient clipping (--trainer.gradient_clip_val 1) or precision 32-true."
        )


def _newest_checkpoint(checkpoints: Any) -> Path | None:
    """Return the newest checkpoint that exists; the callback names its next file before it is written."""
    for name in ("last_model_path", "best_model_path"):
        path = Path(getattr(checkpoints, name, None) or ".")
        if path.is_file():
            return path
    folder = getattr(checkpoints, "dirpath", None)
    return max(Path(folder).glob("*.ckpt"), key=lambda path: path.stat().st_mtime, default=None) if folder else None
