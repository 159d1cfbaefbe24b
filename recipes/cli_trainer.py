"""The trainer of the command line: Lightning's, with `export` as one more method."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule, LightningModule, Trainer


class RecipesTrainer(Trainer):
    """Lightning's Trainer; its methods are the commands."""

    def export(
        self, model: LightningModule, datamodule: LightningDataModule | None = None, ckpt_path: str | None = None
    ) -> None:
        """Write the network of a checkpoint for use without this project."""
        raise NotImplementedError
