"""Stop at the first loss that is not a number."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ..modules.errors import RunError


class FiniteLoss(Callback):
    """Ends a run whose training loss has become NaN or infinite, before a checkpoint of it is written.

    The loss is looked at on its own device at each step and read by the host only every ``every_n_steps`` steps, at
    the end of each epoch, and before anything is saved, so the step does not wait for it. A ``training_step`` that
    returns no loss, as with manual optimization, is judged by the module's ``sample_losses`` if it has any, and else
    by the weights alone, before they are saved.

    Args:
        every_n_steps: Steps between two readings by the host.

    Raises:
        RunError: Names the first step whose loss was not finite.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._first_bad: Tensor | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        self._first_bad = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count as the logs do: the first step is 0."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the step if its loss is not finite."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is None:
            loss = getattr(pl_module, "sample_losses", None)
        if not isinstance(loss, Tensor):
            return
        if self._first_bad is None:
            self._first_bad = torch.full((), torch.inf, device=loss.device)
        finite = torch.isfinite(loss.detach()).all()
        self._first_bad = torch.where(finite, self._first_bad, self._first_bad.clamp(max=self._step))
        if trainer.global_step % self.every_n_steps == 0:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look before the epoch's checkpoint is written."""
        self._check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look before time is spent on validation."""
        self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look before anything is written, at the weights too: a finite loss can have gradients that are not."""
        self._check(trainer)
        finite = [p.isfinite().all() for p in pl_module.parameters() if p.requires_grad]
        if finite and not torch.stack(finite).all():
            raise self._error(trainer, f"weights are not finite after step {trainer.global_step - 1}")

    def _check(self, trainer: Trainer) -> None:
        if self._first_bad is not None and torch.isfinite(self._first_bad):
            raise self._error(trainer, f"the training loss was not finite at step {int(self._first_bad)}")

    @staticmethod
    def _error(trainer: Trainer, problem: str) -> RunError:
        kept = getattr(trainer.checkpoint_callback, "last_model_path", "") or getattr(
            trainer.checkpoint_callback, "best_model_path", ""
        )
        return RunError(
            f"{problem} (epoch {trainer.current_epoch})."
            + (f" The last good checkpoint is {kept}." if kept else " No checkpoint had been written yet.")
            + " Try a lower learning rate, gradient clipping (--trainer.gradient_clip_val 1) or precision 32-true."
        )
