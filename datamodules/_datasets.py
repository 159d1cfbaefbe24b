"""Map-style data sets whose randomness depends on (seed, epoch, index) alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..modules.sampling import epoch_generator

RANDOMS = 6
"""Random numbers per image and epoch: crop (2), flip, cutout (2), seed of the extra transform."""


class EpochDataset(Dataset):
    """A data set that knows the epoch, in this process and in every worker.

    Args:
        seed: Base seed of the augmentation; None serves images without random numbers, for evaluation.
    """

    collate: Callable[[Any], Any] | None = None
    """What makes a batch of the fetched samples; None is torch's default."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        # Workers that outlive an epoch hear of the next one through shared memory.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """The epoch whose random numbers are served."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the sampler calls this."""
        self._epoch.fill_(epoch)


class MemoryImages(EpochDataset):
    """Images held as uint8 and served a whole batch at a time.

    Args:
        images: uint8, shape ``(N, C, H, W)``.
        labels: Class indices, shape ``(N,)``.
        seed: Base seed of the augmentation; None serves images without random numbers, for evaluation.
    """

    collate = staticmethod(lambda batch: batch)

    def __init__(self, images: Tensor, labels: Tensor, seed: int | None = None) -> None:
        super().__init__(seed)
        self.images = images
        self.labels = labels
        self._table: tuple[tuple[int, int] | None, Tensor] = (None, torch.empty(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The uint8 image ``(C, H, W)`` and its label."""
        return self.images[index], int(self.labels[index])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        """A batch: images ``(B, C, H, W)``, labels ``(B,)`` and, for training, random numbers ``(B, RANDOMS)``."""
        index = torch.tensor(indices)
        batch = self.images[index], self.labels[index]
        return batch if self.seed is None else (*batch, self.randoms()[index])

    def randoms(self) -> Tensor:
        """The epoch's random numbers in [0, 1), shape ``(N, RANDOMS)``."""
        key = self.seed or 0, self.epoch
        if self._table[0] != key:
            self._table = key, torch.rand(len(self), RANDOMS, generator=epoch_generator(*key, stream=1))
        return self._table[1]
