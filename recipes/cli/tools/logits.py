"""Logits of a recipe's network on a part of the data, computed by the trainer's own loop."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from ....modules.core.errors import InputError


def collect_logits(
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule | None,
    *,
    part: Literal["train", "val"],
    ckpt_path: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a recipe's network once over all images of a part, in evaluation mode and without gradients.

    The trainer's device, precision, progress bar and ``limit_train_batches`` or ``limit_val_batches`` apply. Other
    callbacks are for training and are left out. Training images come as in the first epoch, including the last batch
    that training may drop.

    Args:
        trainer: A trainer of one process.
        model: The recipe: its ``forward``, or else its attribute ``network``, returns logits ``(N, C)``.
        data: Source of the images; None if the recipe has its own data.
        part: The training or the validation images.
        ckpt_path: Checkpoint with the weights; None uses the model as it is.

    Returns:
        On the CPU, in reading order: logits, float32 ``(N, C)``, and class indices, int64 ``(N,)``.

    Raises:
        InputError: If there are several processes, the recipe returns no logits, the part is missing or empty, or a
            batch is not a pair of images and class indices.
    """
    if trainer.world_size > 1:
        raise InputError(
            f"temperatures runs in one process, but there are {trainer.world_size}:"
            " --trainer.devices 1 --trainer.strategy auto"
        )
    reader = _Reader(model, data, part)
    trainer.limit_predict_batches = trainer.limit_train_batches if part == "train" else trainer.limit_val_batches
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    trainer.callbacks = [callback for callback in callbacks if isinstance(callback, ProgressBar)]  # type: ignore
    try:
        with warnings.catch_warnings():
            # Hide advice for predictions, as these are not predictions.
            warnings.filterwarnings("ignore", ".*sampler has shuffling enabled.*")
            trainer.predict(reader, ckpt_path=ckpt_path, return_predictions=False)
    finally:
        trainer.callbacks = callbacks  # type: ignore[attr-defined]
    if not reader.logits:
        raise InputError(f"the data has no {part} images, or trainer.limit_{part}_batches leaves none")
    return torch.cat(reader.logits), torch.cat(reader.labels)


class _Reader(LightningModule):
    """Module that replaces a recipe in `Trainer.predict`, and reads another part of the data."""

    def __init__(self, recipe: LightningModule, data: LightningDataModule | None, part: str) -> None:
        super().__init__()
        self.recipe = recipe
        self.data = data
        self.part = part
        self.stage = "fit" if part == "train" else "validate"
        self.strict_loading = recipe.strict_loading
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []
        if not is_overridden("forward", recipe) and not isinstance(getattr(recipe, "network", None), nn.Module):
            raise InputError(f"{type(recipe).__name__} has neither a `forward` nor a `network` that gives logits")
        if not is_overridden(f"{part}_dataloader", self.source):
            raise InputError(f"{type(self.source).__name__} has no {part} images: give data, e.g. --data Digits")

    @property
    def source(self) -> Any:
        """Object with the loaders."""
        return self.recipe if self.data is None else self.data

    # -- data --------------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        self.source.prepare_data()

    def setup(self, stage: str) -> None:
        if self.data is not None:
            self.data.trainer = self.trainer
            self.data.setup(self.stage)
        self.recipe.setup(self.stage if self.data is None else "validate")

    def predict_dataloader(self) -> Any:
        return getattr(self.source, f"{self.part}_dataloader")()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self._hook("on_before_batch_transfer")(batch, dataloader_idx)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return self._hook("transfer_batch_to_device")(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self._hook("on_after_batch_transfer")(batch, dataloader_idx)

    def _hook(self, name: str) -> Any:
        """Return the data module's hook if it has one, else the recipe's, as Lightning does."""
        return getattr(self.source if is_overridden(name, self.source) else self.recipe, name)

    # -- weights -----------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        self.recipe.configure_model()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.recipe.on_load_checkpoint(checkpoint)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return self.recipe.load_state_dict(state_dict, strict=strict, assign=assign)

    # -- logits ------------------------------------------------------------------------------------------------------

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError(f"a batch must be a pair (images, labels) but is {_shape(batch)}")
        images, labels = batch
        network: Any = self.recipe if is_overridden("forward", self.recipe) else self.recipe.network
        logits = network(images)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < 2:
            raise InputError(
                f"{type(self.recipe).__name__} must give logits (N, C) of {len(images)} images"
                f" but gives {_shape(logits)}: take a recipe that classifies"
            )
        if not isinstance(labels, Tensor) or labels.shape != logits.shape[:1] or labels.is_floating_point():
            raise InputError(
                f"labels must be class indices ({len(images)},) but are {_shape(labels)}: turn off what mixes them"
            )
        self.logits.append(logits.float().cpu())
        self.labels.append(labels.long().cpu())
        return logits


def _shape(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
