"""Progress bar with images per second."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.data import extract_batch_size


class ImageProgressBar(RichProgressBar):
    """Lightning's rich progress bar, with the images trained per second by this process.

    Where standard output is no terminal (a log file, a batch job) it prints one line per epoch instead.

    Args:
        refresh_rate: Steps between two updates. Each reads the shown values from the device, so a small value slows
            short steps down.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._lines = not sys.stdout.isatty()
        self._images = 0
        self._start = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose between bar and lines."""
        super().setup(trainer, pl_module, stage)
        if self._lines:
            self.disable()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count this epoch anew."""
        super().on_train_epoch_start(trainer, pl_module)
        self._images = 0
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images, and redraw every ``refresh_rate`` steps only."""
        self._images += extract_batch_size(batch)
        done = batch_idx + 1
        if self.is_enabled and (done % self.refresh_rate == 0 or done == trainer.num_training_batches):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar, or print the epoch's line."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._lines and trainer.is_global_zero:
            values = "  ".join(
                f"{name} {_number(value)}" for name, value in self.get_metrics(trainer, pl_module).items()
            )
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}", flush=True)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Values for the bar: the epoch's mean of a metric once it is known, its last value before."""
        logged: dict[str, Any] = super().get_metrics(trainer, pl_module)
        items = {
            name.removesuffix("_step").removesuffix("_epoch"): value
            for name, value in logged.items()
            if name != "v_num" and not (name.endswith("_epoch") and trainer.training and not self._lines)
        }
        if self._images and not trainer.sanity_checking:
            items["images/s"] = round(self._images / max(1e-9, time.perf_counter() - self._start))
        return items


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
