"""Means over an epoch, accumulated on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class RunningMeans:
    """Running means of batch means, weighted by batch size; a step costs three small operations.

    `LightningModule.log` takes about half a millisecond of host time per call, which matters in short steps. This class
    takes a twentieth of that, plus one `log` at the end of the epoch.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Discard all sums."""
        # Key: the names of one update. Value: their sums, and the number of samples.
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    def update(self, means: Mapping[str, Tensor], count: int) -> None:
        """Add a batch.

        Args:
            means: Scalars on one device. A name must always come with the same other names.
            count: Number of samples in the batch.
        """
        names = tuple(means)
        sums = torch.stack([value.detach().float() for value in means.values()]) * count
        if names in self._sums:
            before, samples = self._sums[names]
            sums, count = sums + before.to(sums.device), count + samples
        self._sums[names] = sums, count

    def compute(self) -> dict[str, Tensor]:
        """Return the means so far, by name; empty before the first batch."""
        parts = [zip(names, sums / count, strict=True) for names, (sums, count) in self._sums.items()]
        return {name: mean for part in parts for name, mean in part}

    def state_dict(self, mean_of_processes: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Return the sums so far, for a checkpoint within an epoch.

        One checkpoint serves all processes, and every process resumes from the mean of their sums. All processes must
        therefore call this method.

        Args:
            mean_of_processes: Function that averages a tensor over all processes.
        """
        parts = {names: mean_of_processes(sums.clone()).cpu() for names, (sums, _) in self._sums.items()}
        return {"parts": [(list(names), sums, self._sums[names][1]) for names, sums in parts.items()]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume from these sums."""
        self._sums = {tuple(names): (sums, count) for names, sums, count in state_dict.get("parts", [])}
