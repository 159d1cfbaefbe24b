"""A project that knows nothing of ours: a data set, a plain LightningModule and callbacks that watch them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from helpers import trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_recipes.modules.core.sampling import Stream, epoch_generator
from lightning_recipes.modules.sample_weighting import SampleWeighting
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Indices(Dataset):
    """Sample i is the number i, so a batch says itself which samples were read."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return index


def loader(size: int = 40, batch_size: int = 8, **options: Any) -> DataLoader:
    return DataLoader(Indices(size), batch_size, **{"shuffle": True, **options})


@dataclass
class Step:
    """What a training step saw."""

    epoch: int
    indices: list[int]
    losses: Tensor


class Stranger(LightningModule):
    """Has a parameter for each sample, so its gradient tells what the sample weighed.

    The loss of sample i is ``exp(value[i] + shared)``, whose backward needs the saved output, and so the gradient of
    ``value[i]`` is ``weight[i] * loss[i] / batch size``.

    Args:
        size: Number of samples.
        lr: Of SGD with momentum.
        schedule: Makes a scheduler from the optimizer and `Trainer.estimated_stepping_batches`.
        scheduling: Goes into Lightning's scheduler configuration.
    """

    def __init__(self, size: int = 40, *, lr: float = 0.1, schedule: Any = None, **scheduling: Any) -> None:
        super().__init__()
        start = torch.randn(size, generator=torch.Generator().manual_seed(size))
        self.value, self.shared = torch.nn.Parameter(start), torch.nn.Parameter(torch.zeros(()))
        self.lr, self.schedule, self.scheduling = lr, schedule, scheduling
        self.steps: list[Step] = []
        self.weights: list[Tensor] = []
        self.validated: list[int] = []
        self.rates: list[float] = []

    def losses(self, indices: Tensor) -> Tensor:
        return (self.value[indices] + self.shared).exp()

    def training_step(self, batch: Tensor, batch_idx: int) -> Any:
        losses = self.losses(batch)
        self.steps.append(Step(self.current_epoch, batch.tolist(), losses.detach().clone()))
        return losses

    def on_after_backward(self) -> None:
        step, every = self.steps[-1], self.trainer.accumulate_grad_batches
        gradient = self.value.grad[step.indices] if every == 1 and self.automatic_optimization else torch.tensor([])
        self.weights.append(gradient * len(step.indices) / step.losses[: len(gradient)])

    def on_train_batch_end(self, *args: Any) -> None:
        if self.schedule is not None:
            self.rates.append(self.optimizers().param_groups[0]["lr"])

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.losses(batch % len(self.value)).mean())

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.validated.append(self.current_epoch)

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)
        if self.schedule is None:
            return optimizer
        scheduler = self.schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", **self.scheduling}}

    def epoch(self, epoch: int) -> list[Step]:
        return [step for step in self.steps if step.epoch == epoch]

    def reads(self, epoch: int) -> list[int]:
        """Samples that were read in an epoch, in their order."""
        return [index for step in self.epoch(epoch) for index in step.indices]

    def indices(self, epoch: int) -> list[int]:
        """The same without those that were read again to fill a batch."""
        return list(dict.fromkeys(self.reads(epoch)))

    def epoch_weights(self, epoch: int) -> dict[int, float]:
        """What each sample of an epoch weighed where it was read first, by its gradient."""
        found: dict[int, float] = {}
        for step, weights in zip(self.steps, self.weights, strict=True):
            if step.epoch == epoch:
                found = dict(zip(step.indices, weights.tolist(), strict=True)) | found
        return found


class Averaging(Stranger):
    """The same without the callback: reduces its losses itself."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx).mean()


class DictStranger(Stranger):
    def training_step(self, batch: Tensor, batch_idx: int) -> dict:
        return {"loss": super().training_step(batch, batch_idx), "batch": batch}


class Contracted(SampleWeighting, Stranger):
    """Knows the contract."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.reduce(super().training_step(batch, batch_idx))


class Manual(Contracted):
    """Optimizes by itself."""

    def __init__(self, size: int = 40, **options: Any) -> None:
        super().__init__(size, **options)
        self.automatic_optimization = False

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        optimizer = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)
        step = self.steps[-1]
        self.weights[-1] = self.value.grad[step.indices] * len(step.indices) / step.losses
        optimizer.step()


class Scores(Callback):
    """Keeps a callback's scores as they are before each epoch and after the last."""

    def __init__(self, selection: Any) -> None:
        self.selection = selection
        self.before: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.before.append(self.selection.memory["scores"].clone())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before.append(self.selection.memory["scores"].clone())


def fit(model: LightningModule, data: Any, *callbacks: Callback, ckpt_path: Any = None, **options: Any) -> Trainer:
    """A run of three epochs on one CPU, each followed by a validation."""
    run = trainer(**{"max_epochs": 3, "callbacks": list(callbacks), **options})
    validation = None if not isinstance(data, DataLoader) else loader(4, shuffle=False)
    torch.manual_seed(7)  # a plain loader draws from the global generator
    run.fit(model, data, validation, ckpt_path=ckpt_path)
    return run


def prepared(callback, scores, monkeypatch):
    """A callback outside of a run, with these scores."""
    scores = torch.as_tensor(scores, dtype=torch.float32)
    monkeypatch.setattr(
        callback, "generator", lambda epoch: epoch_generator(callback.seed or 0, epoch, Stream.SELECTION)
    )
    callback.memory = callback.new_memory(len(scores))
    callback.memory["scores"] = scores
    return callback


def chosen(callback, epoch):
    """What it decides for an epoch."""
    indices, weights = callback.decide(callback.memory["scores"], epoch)
    assert weights is None
    return indices.tolist()
