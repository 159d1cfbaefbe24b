"""A fresh random part of the samples each epoch: what every way of choosing them must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from ...modules.core.sampling import uniform_subset
from .engine.checks import check_prune_ratio
from .engine.data_selection import DataSelection


class RandomSubset(DataSelection):
    """Trains each epoch on samples drawn uniformly anew, like RS2 (https://arxiv.org/abs/2305.18424).

    Without ``rescale`` it needs no per-sample losses and works with any module. Schedules run over the shortened
    epochs, as in the paper. Within an epoch no sample is repeated.

    Args:
        prune_ratio: Share of all samples left out of each epoch, in [0, 1). At least one stays.
        rescale: Weight the samples that stay by N / K, so that the sum of an epoch's gradients is unbiased; off in
            RS2, and what remains of InfoBatch without its scores when on.
        seed: Seed of what is drawn and of the order; None takes the one given to ``seed_everything``, or 0.

    Raises:
        InputError: If ``prune_ratio`` is outside [0, 1), or the run is one that `DataSelection` cannot serve.
    """

    def __init__(self, prune_ratio: float = 0.3, *, rescale: bool = False, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        check_prune_ratio(prune_ratio)
        self.prune_ratio = prune_ratio
        self.rescale = rescale
        self.needs_losses = rescale

    def decide(self, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """A uniform draw."""
        size = len(scores)
        keep = max(1, round((1 - self.prune_ratio) * size))
        indices = uniform_subset(size, keep, self.generator(epoch)).nonzero().flatten()
        return indices, torch.full((keep,), size / keep, dtype=torch.float32) if self.rescale else None
