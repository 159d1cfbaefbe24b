"""The sampler that puts a selection of the samples in the place of all, and the loader it is put into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.data import _update_dataloader
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from ..modules.errors import InputError
from ..modules.sampling import EpochSampler, run_seed


class SelectionSampler(EpochSampler):
    """An `EpochSampler` whose epochs are as long as what was selected for them.

    Args:
        dataset: A map-style data set.
        order_of: Gives the indices of an epoch for all processes together, in the order they are read.
        on_epoch: Called when Lightning begins an epoch, before any hook of it, also in a resumed one.
        min_share: Samples each process reads at least, by repeating some.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        order_of: Callable[[int], Tensor],
        on_epoch: Callable[[], None],
        min_share: int,
        seed: int,
        shuffle: bool,
        num_replicas: int,
        rank: int,
        drop_last: bool,
    ) -> None:
        super().__init__(
            dataset, seed=seed, shuffle=shuffle, num_replicas=num_replicas, rank=rank, drop_last=drop_last
        )
        self._order_of = order_of
        self._on_epoch = on_epoch
        self._min_share = min_share
        self._begun = False

    def order(self, epoch: int) -> Tensor:
        """The selected indices."""
        return self._order_of(epoch)

    def share_size(self, size: int) -> int:
        """Samples that each process reads where ``size`` are selected for all."""
        return max(super().share_size(size), self._min_share)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch and tell the callback."""
        super().set_epoch(epoch)
        self._begun = True
        self._on_epoch()

    def __len__(self) -> int:
        # Until training begins the length of an epoch with every sample: schedules are made for that.
        return self.share_size(len(self.order(self.epoch)) if self._begun else len(self.dataset))  # type: ignore[arg-type]


def take_over(
    loader: Any, trainer: Trainer, name: str, *, seed: int | None, order_of: Callable, on_epoch: Callable
) -> DataLoader:
    """The same loader with a `SelectionSampler` in the place of its sampler.

    Args:
        loader: What the training loop would have read.
        trainer: Says how many processes there are.
        name: Of the callback, for messages.
        seed: Of the order; None takes the replaced sampler's, or the run's.
        order_of: See `SelectionSampler`.
        on_epoch: See `SelectionSampler`.

    Raises:
        InputError: If the loader is one whose samples cannot be selected by index.
    """

    def refuse(what: str, way_out: str) -> InputError:
        return InputError(f"{name} chooses samples by index, which it cannot do with {what}: {way_out}")

    if not isinstance(loader, DataLoader):
        raise refuse(
            f"training data of type {type(loader).__name__}", "give one torch DataLoader, not several or another kind"
        )
    if isinstance(loader.dataset, IterableDataset):
        raise refuse(
            f"the IterableDataset {type(loader.dataset).__name__}", "use a map-style data set (__getitem__, __len__)"
        )
    if type(loader.batch_sampler) is not BatchSampler:
        raise refuse(
            f"batch_sampler={type(loader.batch_sampler).__name__}", "let the DataLoader make batches by batch_size"
        )
    if not getattr(loader, "in_order", True):
        raise refuse("in_order=False", "leave in_order at True")
    if hasattr(loader, "load_state_dict"):
        raise refuse(
            f"{type(loader).__name__}, which resumes by itself",
            "use a plain DataLoader, which this callback resumes in the middle of an epoch",
        )
    sampler = loader.sampler
    processes = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
    options: dict[str, Any] = {"seed": run_seed(), "shuffle": True, "drop_last": False, **processes}
    if type(sampler) in (EpochSampler, SelectionSampler, DistributedSampler):
        options |= {key: getattr(sampler, key) for key in options}
    elif type(sampler) is SequentialSampler:
        options["shuffle"] = False
    elif type(sampler) is not RandomSampler or sampler.replacement or sampler.num_samples != len(loader.dataset):
        raise refuse(
            f"the sampler {type(sampler).__name__}, which chooses samples itself",
            "use shuffle=True or a DistributedSampler, and torch.utils.data.Subset for a part of the data",
        )
    if seed is not None:
        options["seed"] = seed
    chosen = SelectionSampler(
        loader.dataset,
        order_of=order_of,
        on_epoch=on_epoch,
        # Where the loader drops its last, smaller batch, an epoch would have none at all.
        min_share=min(loader.batch_size or 1, -(-len(loader.dataset) // options["num_replicas"]))  # type: ignore[arg-type]
        if loader.drop_last
        else 1,
        **options,
    )
    return _update_dataloader(loader, chosen)
