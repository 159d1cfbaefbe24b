"""Training of modules that return per-sample losses, without data selection."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from ...modules.sample_weighting import SampleWeighting
from ..selection.engine.data_selection import DataSelection
from ..selection.engine.per_sample_step import reduce_training_step, restore_training_step


class MeanOfLosses(Callback):
    """Trains a module on the mean of the losses ``(N,)`` that its ``training_step`` returns.

    A module written for data pruning can thus also train without it. A scalar loss is used as it is. If a data
    selection callback is present, this callback does nothing.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace the training step by one that returns the mean of the losses."""
        selects = any(isinstance(callback, DataSelection) for callback in trainer.callbacks)  # type: ignore
        if stage == "fit" and not selects and not isinstance(pl_module, SampleWeighting):
            reduce_training_step(pl_module, SampleWeighting(), "MeanOfLosses", required=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the training step."""
        if not any(isinstance(callback, DataSelection) for callback in trainer.callbacks):  # type: ignore
            restore_training_step(pl_module)
