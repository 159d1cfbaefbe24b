"""Shared code of the rules that keep the samples with the highest average loss."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from ....modules.core.checks import check
from ....modules.core.errors import InputError
from ....modules.core.sampling import uniform_subset
from .checks import check_prune_ratio
from .data_selection import DataSelection


class RunningLossSelection(DataSelection):
    """Chooses a fixed number of samples by running means of their losses, every ``every`` epochs.

    The first epoch uses every sample. The samples chosen for epoch 1 are used for ``every`` epochs, then new ones are
    chosen. The choice is part of the memory, and so of checkpoints.

    Args:
        prune_ratio: Share of all samples left out of an epoch, in [0, 1).
        score_momentum: Share of its old value that a running mean keeps, in [0, 1).
        every: Epochs between two decisions.
        seed: Seed of the draws and of the order.

    Raises:
        InputError: If an argument is out of range.
    """

    weights_samples = False

    def __init__(self, prune_ratio: float, *, score_momentum: float, every: int, seed: int | None) -> None:
        super().__init__(seed=seed)
        check_prune_ratio(prune_ratio)
        check(0 <= score_momentum < 1, "score_momentum", score_momentum, "in [0, 1)")
        if every < 1:
            raise InputError(f"every must be at least 1, to decide anew each epoch, but is {every}")
        self.prune_ratio = prune_ratio
        self.score_momentum = score_momentum
        self.every = every

    @abstractmethod
    def choose(self, scores: Tensor, keep: int, generator: torch.Generator) -> Tensor:
        """Mark ``keep`` samples.

        Args:
            scores: Score per sample, float32 ``(N,)``; NaN for a sample without a score.
            keep: Number of samples to mark, from 1 to N.
            generator: Source of randomness.

        Returns:
            bool ``(N,)``.
        """

    def decide(self, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Choose all samples in the first epoch, then the samples of the last decision."""
        if epoch == 0:
            return torch.arange(len(scores)), None
        decided = epoch - (epoch - 1) % self.every
        # Scores have changed since, so the choice is read from memory and not repeated.
        if self.memory["decided"] != decided:
            keep = max(1, round((1 - self.prune_ratio) * len(scores)))
            self.memory["kept"] = self.choose(scores, keep, self.generator(decided))
            self.memory["decided"] = torch.tensor(decided)
        return self.memory["kept"].nonzero().flatten(), None

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """Return empty scores, the samples chosen last, and the epoch they were chosen for (0: none yet)."""
        kept = torch.ones(size, dtype=torch.bool)
        return {**super().new_memory(size), "kept": kept, "decided": torch.tensor(0)}


def running_mean(old: Tensor, new: Tensor, momentum: float) -> Tensor:
    """Return ``momentum * old + (1 - momentum) * new``, or ``new`` for NaN in ``old``."""
    return torch.where(old.isnan(), new, old.lerp(new, 1 - momentum))


def highest(scores: Tensor, keep: int, generator: torch.Generator) -> Tensor:
    """Mark the ``keep`` highest scores in linear time. Ties at the bound are broken at random, the number is exact.

    Args:
        scores: float32 ``(N,)``; NaN counts as the highest.
        keep: Number of scores to mark, from 1 to N.
        generator: Source of randomness.

    Returns:
        bool ``(N,)``.
    """
    values = scores.numpy()
    values = np.where(np.isnan(values), np.inf, values)
    bound = np.partition(values, len(values) - keep)[len(values) - keep]
    above = torch.from_numpy(values > bound)
    equal = torch.from_numpy(values == bound)
    return above | uniform_subset(len(values), keep - int(above.sum()), generator, among=equal)
