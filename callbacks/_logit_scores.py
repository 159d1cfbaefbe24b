"""What the scores share that are made of a sample's logits while it is trained on."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..modules.errors import InputError
from ._score_file import save_scores
from .data_selection import DataSelection


class LogitScores(DataSelection):
    """Trains on all samples and writes a score of each to a file at the end, for `KeepHardest` in a second run.

    Logits are those of the training step: the output ``(N, C)`` of the module's own forward, so ``training_step`` must
    call ``self(inputs)``. A batch must be a pair of inputs and class indices ``(N,)``.

    Args:
        path: File to write; None is ``scores.safetensors`` in the run's folder (``trainer.default_root_dir``).
        seed: Seed of the order; None takes the one given to ``seed_everything``, or 0.
    """

    needs_losses = False

    def __init__(self, path: str | None = None, *, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.path = path
        self._hook: RemovableHandle | None = None
        self._logits: Tensor | None = None
        self._labels: Any = None

    @abstractmethod
    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What is kept of each sample of a batch ``(N,)``, of its logits ``(N, C)`` and class indices ``(N,)``."""

    def measures(self, epoch: int) -> bool:
        """Whether an epoch counts."""
        return True

    def decide(self, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """All samples."""
        return torch.arange(len(scores)), None

    def observe(self) -> Tensor | None:
        """The measured values of the batch."""
        logits, labels = self._logits, self._labels
        self._logits = self._labels = None
        if not self.measures(self._current_plan().epoch):
            return None
        name = type(self).__name__
        if logits is None:
            raise InputError(
                f"{name} reads the logits (N, C) that the module's forward returns, but training_step got none by"
                " self(inputs): call it there"
            )
        if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point():
            raise InputError(f"{name} needs batches of inputs and class indices (N,), not of soft or no labels")
        return self.measure(logits, labels)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read along what the module's forward returns."""
        if stage != "fit":
            return
        self._unhook()
        super().setup(trainer, pl_module, stage)
        if getattr(pl_module, "mixing", None) is not None:
            raise InputError(f"{type(self).__name__} scores single images: turn mixup and cutmix off in this run")
        self._hook = pl_module.register_forward_hook(self._keep)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See to it that no file of another run is lost."""
        path = self._path(trainer)
        if path.exists() and self._restored is None:
            raise InputError(f"path {path} exists: remove it, or give {type(self).__name__} another path")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take note of the labels."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._logits = None
        self._labels = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        if self._taken is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        try:
            labels = self.labels()
        except InputError:
            labels = None
        save_scores(self._path(trainer), self.memory["scores"], kind=type(self).__name__, labels=labels)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module and the trainer as they were."""
        self._unhook()
        super().teardown(trainer, pl_module, stage)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the module and the trainer as they were."""
        self._unhook()
        super().on_exception(trainer, pl_module, exception)

    def _keep(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        # Under DDP the training step itself runs inside a call of the module, which returns the loss.
        if module.training and isinstance(output, Tensor) and output.ndim == 2:
            self._logits = output.detach()

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _path(self, trainer: Trainer) -> Path:
        return Path(self.path or Path(trainer.default_root_dir) / "scores.safetensors")
