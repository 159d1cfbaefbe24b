"""Real images by class: read once from any loader, then drawn by (seed, step, class)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..modules.core.errors import InputError
from ..modules.core.sampling import EpochSampler, Stream, numpy_generator, run_seed


class RealImages:
    """All images of a loader, as the loader returns them, with their indices by class.

    Args:
        batches: Pairs of images ``(N, C, H, W)``, of any dtype, and class indices ``(N,)``.
        num_classes: Number of classes.

    Raises:
        InputError: If a batch has another form, or labels are out of range.
    """

    def __init__(self, batches: Iterable[Any], num_classes: int) -> None:
        images, labels = [], []
        for batch in batches:
            if not isinstance(batch, (tuple, list)) or len(batch) < 2 or batch[0].ndim != 4 or batch[1].ndim != 1:
                raise InputError(
                    "DatasetDistillation needs training batches of images (N, C, H, W) and class indices (N,), but the"
                    f" loader gives {_described(batch)}"
                )
            images.append(batch[0])
            labels.append(batch[1])
        if not images:
            raise InputError("the training loader gives no batches: check the data")
        self.images = torch.cat(images)
        self.labels = torch.cat(labels).long()
        if self.labels.min() < 0 or self.labels.max() >= num_classes:
            raise InputError(
                f"labels must lie in 0..{num_classes - 1} (num_classes={num_classes}) but run from"
                f" {int(self.labels.min())} to {int(self.labels.max())}: correct the labels or num_classes"
            )
        self.by_class = [(self.labels == label).nonzero().flatten() for label in range(num_classes)]

    def draw(self, label: int, number: int, stream: Stream, *words: int) -> Tensor:
        """Return indices of ``number`` different images of a class, or of all its images if there are fewer.

        The draw depends only on ``(stream, *words, label)``.
        """
        members = self.by_class[label]
        source = numpy_generator(stream, *words, label)
        return members[torch.from_numpy(source.choice(len(members), min(number, len(members)), replace=False))]


class ClassBatches(Dataset):
    """Data set with one batch per item: ``per_class`` real images of every class, ordered by class.

    Args:
        real: The images.
        classes: Classes to draw.
        per_class: Images per class; a class with fewer images gives all of them.
        steps: Items per epoch.
    """

    def __init__(self, real: RealImages, classes: Sequence[int], *, per_class: int, steps: int) -> None:
        self.real = real
        self.classes = tuple(classes)
        self.per_class = per_class
        self.steps = steps
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the sampler calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    @property
    def counts(self) -> list[int]:
        """Images per class in an item."""
        return [min(self.per_class, len(self.real.by_class[label])) for label in self.classes]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return images ``(N, C, H, W)`` as the datamodule's loader returns them, and labels ``(N,)``."""
        if not 0 <= index < self.steps:
            raise IndexError(index)
        chosen = torch.cat(
            [
                self.real.draw(label, self.per_class, Stream.REAL_BATCH, run_seed(), self.epoch, index)
                for label in self.classes
            ]
        )
        return self.real.images[chosen], self.real.labels[chosen]

    def loader(self, resume: tuple[int, int]) -> DataLoader:
        """Return a loader of these batches that starts at ``resume``: the epoch and its number of finished items."""
        # A subclass of `DistributedSampler`, so Lightning does not replace it: every process reads all items, each with
        # the classes of that process.
        sampler = EpochSampler(self, shuffle=False)
        sampler.resume_at(*resume)
        generator = torch.Generator().manual_seed(0)  # otherwise a loader draws from the global generator
        return DataLoader(self, batch_size=None, sampler=sampler, generator=generator)


def _described(batch: Any) -> str:
    parts = batch if isinstance(batch, (tuple, list)) else [batch]
    return ", ".join(
        f"{type(part).__name__} {tuple(part.shape) if isinstance(part, Tensor) else ''}".strip() for part in parts
    )
