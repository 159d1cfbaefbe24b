"""Base class of scores computed from a sample's logits during training."""

from __future__ import annotations

import itertools
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ....modules.artifacts.score_file import save_scores
from ....modules.core.errors import InputError
from .data_selection import DataSelection


class LogitScores(DataSelection):
    """Trains on all samples and writes a score per sample to a file at the end, for `KeepHardest` in a second run.

    The logits are the output ``(N, C)`` of the module's own forward in the training step, so ``training_step`` must
    call ``self(inputs)``. A batch must be a pair of inputs and class indices ``(N,)``.

    The file is written once, at the end of a complete run that has scored any sample. A new run refuses to start if the
    file exists. If another run writes the file meanwhile, this run adds a number to its file name. A resumed run
    replaces an existing file, as it may be its own.

    Args:
        path: File to write. None writes ``scores.safetensors`` in the run's folder (``trainer.default_root_dir``).
        seed: Seed of the order. None takes the seed given to ``seed_everything``, or 0.
    """

    needs_losses = False
    shortens_epochs = False

    def __init__(self, path: str | None = None, *, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.path = path
        self._hook: RemovableHandle | None = None
        self._logits: Tensor | None = None
        self._labels: Tensor | None = None
        self._written: Path | None = None
        self._unobserved = False

    @abstractmethod
    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return a value per sample ``(N,)`` from logits ``(N, C)`` and class indices ``(N,)``."""

    def measures(self, epoch: int) -> bool:
        """Return whether the epoch is scored."""
        return True

    def decide(self, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Choose all samples."""
        return torch.arange(len(scores)), None

    def observe(self) -> Tensor | None:
        """Return the measured values of the batch."""
        logits, labels = self._logits, self._labels
        self._logits = self._labels = None
        self._unobserved = logits is None or labels is None
        if logits is None or labels is None:
            return None
        if len(logits) != len(labels):
            raise InputError(
                f"{self._name} needs one row of logits for each label, but the last self(inputs) of training_step gave"
                f" {len(logits)} for {len(labels)}: call it with the batch's inputs last"
            )
        return self.measure(logits, labels.long()) if self.measures(self._current_plan().epoch) else None

    def refuse_unobserved(self, pl_module: LightningModule) -> None:
        """Refuse a step without logits, also in an epoch that is not scored, so that the error comes early."""
        if self._unobserved:
            raise InputError(
                f"{self._name} reads the logits (N, C) that the module's forward returns, but training_step got none by"
                " self(inputs): call it there"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hook into the module's forward."""
        if stage != "fit":
            return
        self._unhook()
        super().setup(trainer, pl_module, stage)
        if trainer.current_epoch == 0:
            # A new run, not the continuation of one.
            self._written = None
        if getattr(pl_module, "mixing", None) is not None:
            raise InputError(f"{self._name} scores single images: turn mixup and cutmix off in this run")
        self._hook = pl_module.register_forward_hook(self._keep)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the file can be written and does not belong to another run."""
        super().on_train_start(trainer, pl_module)
        if not self._writes(trainer):
            return
        path = self._path(trainer)
        if path.is_dir() or (path.exists() and not self._is_own(path)):
            raise InputError(f"path {path} exists: remove it, or give {self._name} another path")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise InputError(
                f"path {path} cannot be written ({error.strerror}): give {self._name} another path"
            ) from error

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the labels."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._taken is None:
            return
        labels = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None
        if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point():
            raise InputError(
                f"{self._name} needs batches of inputs and class indices (N,), not of soft or no labels: have the data"
                " set give pairs of them"
            )
        self._logits, self._labels = None, labels

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        if not self._writes(trainer):
            return
        scores, path = self.memory["scores"], self._path(trainer)
        if scores.isnan().all():
            rank_zero_warn(f"{self._name} wrote no file, as the run ended before any sample was scored")
            return
        if trainer.is_global_zero:
            if path.exists() and not self._is_own(path):
                taken, names = path, (path.with_stem(f"{path.stem}_{number}") for number in itertools.count(2))
                path = next(name for name in names if not name.exists())
                rank_zero_warn(f"{taken} was written by another run meanwhile: {self._name} wrote {path}")
            try:
                labels = self.labels()
            except (InputError, RuntimeError, TypeError, ValueError):  # no labels, or labels that are not class indices
                labels = None
            save_scores(path, scores, kind=self._name, labels=labels)
        self._written = path

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the module and the trainer."""
        self._unhook()
        self._logits = self._labels = None
        super().teardown(trainer, pl_module, stage)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the module and the trainer."""
        self._unhook()
        super().on_exception(trainer, pl_module, exception)

    def _keep(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        # Under DDP the training step runs inside a call of the module. That call returns the loss, which is skipped
        # here.
        if module.training and isinstance(output, Tensor) and output.ndim == 2:
            self._logits = output.detach()

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _writes(self, trainer: Trainer) -> bool:
        """Return whether this run writes a file."""
        return self._taken is not None and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _is_own(self, path: Path) -> bool:
        """Return whether a file may come from the earlier part of this run."""
        return self._restored is not None or path == self._written

    def _path(self, trainer: Trainer) -> Path:
        return Path(self.path or Path(trainer.default_root_dir) / "scores.safetensors")
