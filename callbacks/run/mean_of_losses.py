"""Modules that return one loss per sample, trained without a callback that selects or weights samples."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from ...modules.sample_weighting import SampleWeighting
from ..selection.engine.data_selection import DataSelection
from ..selection.engine.per_sample_step import reduce_training_step, restore_training_step


class MeanOfLosses(Callback):
    """Trains a module whose ``training_step`` returns losses ``(N,)`` by their mean.

    So a module that is written for data pruning trains without it too. A loss that is a scalar already stays as it is,
    and nothing is done where a selecting callback is there.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the mean of what the training step returns."""
        selects = any(isinstance(callback, DataSelection) for callback in trainer.callbacks)  # type: ignore
        if stage == "fit" and not selects and not isinstance(pl_module, SampleWeighting):
            reduce_training_step(pl_module, SampleWeighting(), "MeanOfLosses", required=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        if not any(isinstance(callback, DataSelection) for callback in trainer.callbacks):  # type: ignore
            restore_training_step(pl_module)
