"""A new random subset of the samples each epoch: the baseline of all selection rules."""

from __future__ import annotations

import torch
from torch import Tensor

from ...modules.core.sampling import uniform_subset
from .engine.checks import check_prune_ratio
from .engine.data_selection import DataSelection


class RandomSubset(DataSelection):
    """Trains each epoch on a new uniform draw of the samples, like RS2 (https://arxiv.org/abs/2305.18424).

    Without ``rescale`` it needs no per-sample losses and works with any module. Learning-rate schedules run over the
    shortened epochs, as in the paper. Within an epoch no sample is repeated.

    Args:
        prune_ratio: Share of all samples left out per epoch, in [0, 1). At least one sample stays.
        rescale: Weight the K chosen samples by N / K, so that the sum of an epoch's gradients is unbiased. Off in RS2;
            when on, the rule is InfoBatch without scores.
        seed: Seed of the draws and of the order. None takes the seed given to ``seed_everything``, or 0.

    Raises:
        InputError: If ``prune_ratio`` is outside [0, 1), or `DataSelection` does not support the run.
    """

    def __init__(self, prune_ratio: float = 0.3, *, rescale: bool = False, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        check_prune_ratio(prune_ratio)
        self.prune_ratio = prune_ratio
        self.rescale = rescale
        self.needs_losses = rescale

    def decide(self, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Draw samples uniformly."""
        size = len(scores)
        keep = max(1, round((1 - self.prune_ratio) * size))
        indices = uniform_subset(size, keep, self.generator(epoch)).nonzero().flatten()
        return indices, torch.full((keep,), size / keep, dtype=torch.float32) if self.rescale else None
