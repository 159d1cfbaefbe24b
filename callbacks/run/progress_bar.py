"""Progress bar with images per second."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from ..selection.engine.batches import count_samples


class ImageProgressBar(RichProgressBar):
    """Lightning's rich progress bar, with the images that this process trains per second.

    If standard output is not a terminal (a log file, a batch job), it prints one line per epoch instead.

    Args:
        refresh_rate: Steps between two updates. Each update reads values from the device, so a small number slows short
            steps down.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._lines = not sys.stdout.isatty()
        self._images = 0
        self._start = time.perf_counter()
        self._seconds = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose between bar and lines."""
        super().setup(trainer, pl_module, stage)
        if self._lines:
            self.disable()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the last epoch and reset the counters."""
        self._print_line(trainer, pl_module)
        super().on_train_epoch_start(trainer, pl_module)
        self._images, self._seconds = 0, 0.0
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images; redraw only every ``refresh_rate`` steps."""
        self._images += count_samples(batch)
        self._seconds = time.perf_counter() - self._start
        done = batch_idx + 1
        if self.is_enabled and (done % self.refresh_rate == 0 or done == trainer.num_training_batches):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last epoch's line."""
        self._print_line(trainer, pl_module)
        super().on_train_end(trainer, pl_module)

    def _print_line(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not in on_train_epoch_end: the epoch means are logged only after the callbacks' hook.
        if self._lines and self._seconds and trainer.is_global_zero:
            metrics = self.get_metrics(trainer, pl_module)
            values = "  ".join(f"{name} {_number(value)}" for name, value in sorted(metrics.items()))
            end = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
            print(f"epoch {trainer.current_epoch}{end}  {values}", flush=True)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the metrics to show. Of ``X_step`` and ``X_epoch`` the bar shows the first, lines the second."""
        logged: dict[str, Any] = super().get_metrics(trainer, pl_module)
        stepwise = {name.removesuffix("_step") for name in logged if name.endswith("_step")}
        live = trainer.training and not self._lines
        items: dict[str, Any] = {}
        for name, value in logged.items():
            base = name.removesuffix("_step").removesuffix("_epoch")
            if name != "v_num" and (base not in stepwise or name.endswith("_step") == live):
                items[base] = value
        if self._images and not trainer.sanity_checking:
            items["images/s"] = f"{self._images / max(1e-9, self._seconds):,.0f}"
        return items

    def configure_columns(self, trainer: Trainer) -> list:
        """Return Lightning's columns without the last one (batches per second)."""
        return super().configure_columns(trainer)[:-1]


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
