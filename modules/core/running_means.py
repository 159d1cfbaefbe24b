"""Means over an epoch, added up on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
        # For the names of one update: their sums, and the number of samples.
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    def update(self, means: Mapping[str, Tensor], count: int) -> None:
        """Add a batch.

        Args:
            means: Scalars of one device. A name is always given together with the same others.
            count: Number of samples that each is the mean of.
        """
        names = tuple(means)
        sums = torch.stack([value.detach().float() for value in means.values()]) * count
        if names in self._sums:
            before, samples = self._sums[names]
            sums, count = sums + before.to(sums.device), count + samples
        self._sums[names] = sums, count

    def compute(self) -> dict[str, Tensor]:
        """The means so far, by name; empty before the first batch."""
        parts = [zip(names, sums / count, strict=True) for names, (sums, count) in self._sums.items()]
        return {name: mean for part in parts for name, mean in part}

    def state_dict(self, mean_of_processes: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Return the sums so far, for a checkpoint within an epoch.

        Args:
            mean_of_processes: Averages a tensor over all processes. One checkpoint serves all processes, and each
                goes on from their mean, so all of them must call this method.
        """
        parts = {names: mean_of_processes(sums.clone()).cpu() for names, (sums, _) in self._sums.items()}
        return {"parts": [(list(names), sums, self._sums[names][1]) for names, sums in parts.items()]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from these sums."""
        self._sums = {tuple(names): (sums, count) for names, sums, count in state_dict.get("parts", [])}
