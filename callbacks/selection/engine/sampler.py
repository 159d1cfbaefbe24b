"""Sampler of the selected samples, and the loader that uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from ....modules.core.errors import InputError
from ....modules.core.sampling import EpochSampler, run_seed
from ....modules.lightning_private import uses_distributed_sampler, with_sampler
from .sample_order import SampleOrder


class SelectionSampler(EpochSampler):
    """An `EpochSampler` with epochs as long as the selection.

    Args:
        dataset: A map-style data set.
        order_of: Returns the indices of an epoch for all processes together, in reading order.
        on_epoch: Called when Lightning begins or resumes an epoch, before the hooks of the epoch.
        batch_size: Samples in a batch of one process.
        whole_batches: Whether the loader drops the last, smaller batch.

    Attributes:
        begun: Whether Lightning has begun an epoch.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        order_of: Callable[[int], Tensor],
        on_epoch: Callable[[], None],
        batch_size: int,
        whole_batches: bool,
        seed: int,
        shuffle: bool,
        num_replicas: int,
        rank: int,
        drop_last: bool,
    ) -> None:
        super().__init__(dataset, seed=seed, shuffle=shuffle, num_replicas=num_replicas, rank=rank, drop_last=drop_last)
        self._order_of = order_of
        self._on_epoch = on_epoch
        self._batch_size = batch_size
        self._whole_batches = whole_batches
        self.begun = False

    def order(self, epoch: int) -> Tensor:
        """Return the selected indices."""
        return self._order_of(epoch)

    def share_size(self, size: int) -> int:
        """Return the number of samples that each process reads if ``size`` are selected; some may be repeats."""
        share, every = super().share_size(size), len(self.dataset)  # type: ignore[arg-type]
        if size == every:
            return share
        if self._whole_batches:
            # Keep at least one batch: an epoch without a batch is empty.
            return max(share, min(self._batch_size, super().share_size(every)))
        # A last batch of one sample would break batch normalization.
        return share + (share % self._batch_size == 1 < self._batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch and call ``on_epoch``."""
        super().set_epoch(epoch)
        self.begun = True
        self._on_epoch()

    def __len__(self) -> int:
        # Until training begins, the length of an epoch with every sample: schedules are made for that length.
        return self.share_size(len(self.order(self.epoch)) if self.begun else len(self.dataset))  # type: ignore[arg-type]


@dataclass(frozen=True)
class SelectedData:
    """A training loader with a `SelectionSampler`.

    Attributes:
        loader: The loader.
        sampler: Its sampler.
        trainer: The trainer, for its ``limit_train_batches``.
        order: Follows the samples into the batches.
    """

    loader: DataLoader
    sampler: SelectionSampler
    trainer: Trainer
    order: SampleOrder

    @property
    def size(self) -> int:
        """Number of training samples."""
        return len(self.loader.dataset)  # type: ignore[arg-type]

    @property
    def batch_size(self) -> int:
        """Samples in a batch of one process."""
        return self.loader.batch_size or 1

    def part(self, batch_idx: int) -> slice:
        """Return the slice of a batch in its process's share of an epoch."""
        return slice(batch_idx * self.batch_size, (batch_idx + 1) * self.batch_size)

    def batches(self, selected: int) -> int:
        """Return the batches that a process reads in an epoch with ``selected`` samples over all processes."""
        share = self.sampler.share_size(selected)
        batches = share // self.batch_size if self.loader.drop_last else -(-share // self.batch_size)
        limit = self.trainer.limit_train_batches
        return min(batches, limit) if isinstance(limit, int) else max(1, int(batches * limit))

    def samples(self, selected: int) -> int:
        """Return the samples that all processes together read in an epoch with ``selected`` samples."""
        share = self.sampler.share_size(selected)
        return min(self.batches(selected) * self.batch_size, share) * self.sampler.num_replicas


def take_over(
    loader: Any,
    trainer: Trainer,
    name: str,
    *,
    seed: int | None,
    order_of: Callable,
    on_epoch: Callable,
    on_fetch: Callable,
) -> SelectedData:
    """Return the loader with its sampler replaced by a `SelectionSampler`.

    Args:
        loader: Loader of the training loop.
        trainer: Knows the number of processes.
        name: Name of the callback, for messages.
        seed: Seed of the order. None takes the seed of the replaced sampler, or the run's.
        order_of: See `SelectionSampler`.
        on_epoch: See `SelectionSampler`.
        on_fetch: See `SampleOrder`.

    Raises:
        InputError: If samples of the loader cannot be selected by index.
    """
    _check_loader(loader, name)
    batches = loader.batch_sampler
    sampler = batches.sampler
    processes = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
    _check_shards(sampler, trainer, name, processes["num_replicas"])
    options: dict[str, Any] = {"seed": run_seed(), "shuffle": True, "drop_last": False, **processes}
    if type(sampler) in (EpochSampler, SelectionSampler, DistributedSampler):
        options |= {key: getattr(sampler, key) for key in options}
    else:
        options["shuffle"] = type(sampler) is RandomSampler
    if seed is not None:
        options["seed"] = seed
    chosen = SelectionSampler(
        loader.dataset,
        order_of=order_of,
        on_epoch=on_epoch,
        batch_size=batches.batch_size,
        whole_batches=batches.drop_last,
        **options,
    )
    taken = with_sampler(loader, chosen)
    return SelectedData(taken, chosen, trainer, SampleOrder(taken, on_fetch))


def _check_loader(loader: Any, name: str) -> None:
    """Refuse anything but a single loader that makes batches of indices in a known order."""

    def refusal(what: str, way_out: str) -> InputError:
        return InputError(f"{name} chooses samples by index, which it cannot do with {what}: {way_out}")

    if not isinstance(loader, DataLoader):
        kind = type(loader).__name__
        raise refusal(f"training data of type {kind}", "give one torch DataLoader, not several or another kind")
    if isinstance(loader.dataset, IterableDataset):
        kind = type(loader.dataset).__name__
        raise refusal(f"the IterableDataset {kind}", "use a map-style data set, with __getitem__ and __len__")
    if type(loader.batch_sampler) is not BatchSampler:
        kind = type(loader.batch_sampler).__name__
        raise refusal(f"batch_sampler={kind}", "let the DataLoader make batches by batch_size")
    if not getattr(loader, "in_order", True):
        raise refusal("in_order=False", "leave in_order at True")
    if hasattr(loader, "load_state_dict"):
        kind = type(loader).__name__
        raise refusal(f"{kind}, which resumes by itself", "use a plain DataLoader; this callback resumes it mid-epoch")
    sampler = loader.batch_sampler.sampler
    if type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(loader.dataset):  # type: ignore[arg-type]
        return
    if type(sampler) not in (EpochSampler, SelectionSampler, DistributedSampler, SequentialSampler):
        raise refusal(
            f"the sampler {type(sampler).__name__}, which chooses samples itself",
            "use shuffle=True or a DistributedSampler, and torch.utils.data.Subset for a part of the data",
        )


def _check_shards(sampler: Any, trainer: Trainer, name: str, processes: int) -> None:
    """Refuse processes that do not share one data set."""
    shared = isinstance(sampler, DistributedSampler)
    if trainer.world_size > 1 and not shared and not uses_distributed_sampler(trainer):
        raise InputError(
            f"{name} chooses samples of one data set for all processes, but use_distributed_sampler=False lets each"
            " bring its own: give every process the whole data set and leave use_distributed_sampler at True, or give"
            " the loader a DistributedSampler"
        )
    if shared and trainer.world_size > 1 and sampler.num_replicas != processes:
        raise InputError(
            f"{name} chooses samples for {processes} processes, but the loader's {type(sampler).__name__} has"
            f" num_replicas={sampler.num_replicas}: give it num_replicas={processes}"
        )
