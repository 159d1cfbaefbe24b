"""Write predicted classes and class probabilities to a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from ...modules.core.errors import InputError


class PredictionWriter(BasePredictionWriter):
    """Writes one line per image: its name, the most probable class, and the probability of every class.

    ``predict_step`` must return class probabilities ``(N, C)``. Names come from ``predict_names`` and ``class_names``
    of the data module; without them, numbers are written. With several processes, each writes a separate file with its
    rank before the suffix.

    Args:
        path: CSV file to write.

    Raises:
        InputError: If ``predict_step`` returns anything else.
    """

    def __init__(self, path: str) -> None:
        super().__init__("batch")
        self.path = Path(path)
        self._count = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create an empty file."""
        if trainer.world_size > 1:
            self.path = self.path.with_suffix(f".{trainer.global_rank}{self.path.suffix}")
        self._count = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the lines of a batch."""
        if not isinstance(prediction, Tensor) or prediction.ndim != 2:
            given = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
            raise InputError(
                f"predict_step of {type(pl_module).__name__} must return class probabilities (N, C) but gave {given}"
            )
        data: Any = getattr(trainer, "datamodule", None)
        files, classes = getattr(data, "predict_names", None), getattr(data, "class_names", None)
        if classes is None or len(classes) != prediction.shape[1]:
            classes = [str(index) for index in range(prediction.shape[1])]
        indices = batch_indices or range(self._count, self._count + len(prediction))
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if not self._count:
                writer.writerow(["file", "class", *classes])
            best = prediction.argmax(1).tolist()
            for index, winner, row in zip(indices, best, prediction.tolist(), strict=True):
                name = files[index] if files else index
                writer.writerow([name, classes[winner], *(f"{value:.6g}" for value in row)])
        self._count += len(prediction)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the path of the file."""
        rank_zero_info(f"{self._count} predictions written to {self.path}")
