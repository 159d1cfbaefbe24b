"""A sampler whose order is a pure function of seed and epoch, in one process or many, resumed or not."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler


class EpochSampler(DistributedSampler):
    """Indices in an order that depends on ``(seed, epoch)`` alone.

    It differs from `torch.utils.data.RandomSampler` in three ways a recipe needs: the order does not depend on the
    global generator, W processes together read the same joint batches as one process with a W times larger batch,
    and a run resumed in the middle of an epoch goes on with the samples it has not yet seen (:meth:`resume_at`).
    It is a `DistributedSampler`, so Lightning leaves it alone and calls :meth:`set_epoch`, and it tells the data set
    the epoch where that has a ``set_epoch`` of its own. ``__iter__`` is free of side effects.

    Args:
        dataset: A map-style data set.
        seed: Base seed, the same in every process.
        shuffle: False keeps the data set's own order.
        num_replicas: Number of processes.
        rank: Index of this process.
    """

    def __init__(
        self, dataset: Sized, *, seed: int = 0, shuffle: bool = True, num_replicas: int = 1, rank: int = 0
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore
        self._resume = (0, 0)

    def order(self, epoch: int) -> Tensor:
        """All indices of an epoch, for all processes together, in the order they are read."""
        if not self.shuffle:
            return torch.arange(len(self.dataset))  # type: ignore
        return torch.randperm(len(self.dataset), generator=epoch_generator(self.seed, epoch))  # type: ignore

    def resume_at(self, epoch: int, samples: int) -> None:
        """Start at ``epoch``, leaving out the first ``samples`` that each process has read already."""
        self._resume = (epoch, samples)
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration reads."""
        # On resume Lightning can ask for epoch 0 before it has restored its loops, and workers start reading at once.
        self.epoch = max(epoch, self._resume[0])
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(self.epoch)  # type: ignore

    def __iter__(self) -> Iterator[int]:
        order = self.order(self.epoch)
        order = order.repeat(-(-self.total_size // max(1, len(order))))[: self.total_size]
        mine = order[self.rank : self.total_size : self.num_replicas]
        epoch, samples = self._resume
        return iter(mine[samples if self.epoch == epoch else 0 :].tolist())


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A generator whose stream depends on ``(seed, epoch)`` and shares nothing with the global one."""
    # Multiplying by a large odd number keeps (seed, epoch + 1) apart from (seed + 1, epoch).
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + epoch) % 2**63)
