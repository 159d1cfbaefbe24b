"""Means over an epoch, added up on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class RunningMeans:
    """Means of batch means, weighted by batch size, at the cost of three small operations a step.

    `LightningModule.log` costs about half a millisecond of host time a call, which shows in short steps; this costs
    a twentieth of that, and one `log` at the end of the epoch.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._count = 0

    def update(self, means: Mapping[str, Tensor], count: int) -> None:
        """Add a batch.

        Args:
            means: Scalars of one device, the same names each time.
            count: Number of samples that each is the mean of.
        """
        sums = torch.stack([value.detach().float() for value in means.values()]) * count
        self._sums = sums if self._sums is None else self._sums + sums
        self._names = tuple(means)
        self._count += count

    def compute(self) -> dict[str, Tensor]:
        """The means so far, by name; empty before the first batch."""
        return {} if self._sums is None else dict(zip(self._names, self._sums / self._count, strict=True))
