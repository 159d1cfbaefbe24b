"""Map-style data sets with randomness that depends only on (seed, epoch, index)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..modules.core.errors import InputError
from ..modules.core.sampling import Stream, derived_seed, epoch_generator, isolated_rng

RANDOMS = 6
"""Random numbers per image and epoch: crop (2), flip, cutout (2), seed of the extra transform."""

RANDOM_LIMIT = 2**24
"""Upper limit of the random numbers. They are integers, as Lightning would round floats to the training precision."""


def _as_is(batch: Any) -> Any:
    return batch


class EpochDataset(Dataset):
    """A data set that knows the epoch, in this process and in every worker.

    Args:
        seed: Base seed of the augmentation; None returns images without random numbers, for evaluation.
    """

    collate: Callable[[Any], Any] | None = None
    """Function that makes a batch of the fetched samples; None is torch's default."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        # Persistent workers learn the next epoch through shared memory.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        raise NotImplementedError

    def content(self) -> tuple[Any, Tensor]:
        """Return the images, or their paths, and the labels ``(N,)`` of the data set."""
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """The epoch of the current random numbers."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the sampler calls this."""
        self._epoch.fill_(epoch)


class MemoryImages(EpochDataset):
    """Images in memory as uint8, read one batch at a time.

    Args:
        images: uint8, shape ``(N, C, H, W)``.
        labels: Class indices, shape ``(N,)``, or class probabilities, shape ``(N, classes)``.
        seed: Base seed of the augmentation; None returns images without random numbers, for evaluation.
    """

    collate = staticmethod(_as_is)

    def __init__(self, images: Tensor, labels: Tensor, seed: int | None = None) -> None:
        super().__init__(seed)
        self.images = images
        self.labels = labels
        self._table: tuple[tuple[int, int] | None, Tensor] = (None, torch.empty(0))

    def __len__(self) -> int:
        return len(self.images)

    def content(self) -> tuple[Tensor, Tensor]:
        """Return images and labels."""
        return self.images, self.labels

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """Return the uint8 image ``(C, H, W)`` and its label."""
        label = self.labels[index]
        return self.images[index], label if label.ndim else int(label)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        """Return a batch: images ``(B, C, H, W)``, labels ``(B,)`` and, for training, random numbers and indices.

        Random numbers and index share one tensor ``(B, RANDOMS + 1)``; the index is the last column.
        """
        index = torch.tensor(indices)
        batch = self.images[index], self.labels[index]
        if self.seed is None:
            return batch
        return *batch, torch.cat([self.randoms()[index], index.int().unsqueeze(1)], 1)

    def randoms(self) -> Tensor:
        """Return the epoch's random numbers, shape ``(N, RANDOMS)``."""
        key = self.seed or 0, self.epoch
        if self._table[0] != key:
            self._table = (
                key,
                torch.randint(
                    RANDOM_LIMIT,
                    (len(self), RANDOMS),
                    generator=epoch_generator(*key, stream=Stream.AUGMENTATION),
                    dtype=torch.int32,
                ),
            )
        return self._table[1]


class FileImages(EpochDataset):
    """Images read from files, one at a time.

    Args:
        paths: File names as a bytes array of shape ``(N,)``: strings would be copied into every worker.
        labels: Class indices, shape ``(N,)``.
        transform: Turns an RGB PIL image into a uint8 tensor ``(C, H, W)``. It may use the global random generators:
            they are seeded for each image and restored.
        seed: Base seed of the augmentation; None returns images without random numbers, for evaluation.
        skip_corrupt: Replace an unreadable file by the next readable file of the same folder.
    """

    def __init__(
        self,
        paths: np.ndarray,
        labels: Tensor,
        transform: Callable[[Image.Image], Tensor],
        seed: int | None = None,
        *,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(seed)
        self.paths = paths
        self.labels = labels
        self.transform = transform
        self.skip_corrupt = skip_corrupt
        # In shared memory, so that the main process learns of corrupt files found by workers.
        self._corrupt = torch.zeros(len(paths), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.paths)

    def content(self) -> tuple[np.ndarray, Tensor]:
        """Return paths and labels."""
        return self.paths, self.labels

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return the uint8 image ``(C, H, W)``, its label and, for training, ``RANDOMS`` numbers and the index."""
        label = int(self.labels[index])
        if self.seed is None:
            return self.read(index), label
        with isolated_rng(derived_seed(Stream.FILE_AUGMENTATION, self.seed, self.epoch, index)):
            randoms = torch.randint(RANDOM_LIMIT, (RANDOMS,), dtype=torch.int32)
            return self.read(index), label, torch.cat([randoms, torch.tensor([index], dtype=torch.int32)])

    def read(self, index: int) -> Tensor:
        """Return the transformed image, or its replacement.

        Raises:
            UnreadableImageError: If the file is corrupt and ``skip_corrupt`` is off, or no file can replace it.
        """
        folder = os.path.dirname(self.paths[index])
        for offset in range(len(self)):
            candidate = (index + offset) % len(self)
            if self._corrupt[candidate] or os.path.dirname(self.paths[candidate]) != folder:
                continue
            path = os.fsdecode(self.paths[candidate])
            try:
                with Image.open(path) as file:
                    image = file.convert("RGB")
            # Decoders raise any of these errors for damaged files.
            except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
                if not self.skip_corrupt:
                    raise UnreadableImageError(
                        f"{path} cannot be read as an image ({error}): remove it, or set --data.skip_corrupt true"
                    ) from error
                self._corrupt[candidate] = True
                continue
            return self.transform(image)
        raise UnreadableImageError(f"{os.fsdecode(folder)} has no image that can be read: add images or remove it")

    def corrupt(self) -> list[str]:
        """Return the unreadable files found so far."""
        return [os.fsdecode(path) for path in self.paths[self._corrupt.numpy()]]


class UnreadableImageError(InputError):
    """An image file that cannot be decoded."""

    def __init__(self, message: str) -> None:
        # A worker's exception is rebuilt from the text of its traceback; its last line is the message.
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.{type(self).__name__}: "))
