"""Epsilon-greedy: keep the samples with the highest losses and a random draw of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from ...modules.core.checks import check
from ...modules.core.sampling import uniform_subset
from .engine.running_losses import RunningLossSelection, highest, running_mean


class EpsilonGreedy(RunningLossSelection):
    """Trains on the highest losses and on random other samples (Raju et al. 2021, https://arxiv.org/abs/2111.12621).

    Every ``every`` epochs, K = ``round((1 - prune_ratio) N)`` samples are chosen, and used until the next decision:

    - ``K - round(epsilon * K)`` samples with the highest running mean of their loss; ties are broken at random;
    - ``round(epsilon * K)`` samples drawn uniformly from all others.

    The draw is made with each decision; ``every=1`` draws in each epoch. The first epoch uses every sample. Samples
    without a score count as the highest. Losses are not weighted, so training is biased towards hard samples: compare
    with `RandomSubset`.

    The paper's own constants are unverified. The defaults are the same as in `UCB`, except for our ``epsilon``.

    Args:
        prune_ratio: Share of all samples left out per epoch, except in the first, in [0, 1). At least one sample stays.
        epsilon: Share of the chosen samples that is drawn uniformly, in [0, 1]; 1 is a random subset. Unverified.
        score_momentum: Share of its old value that the running mean keeps when a sample is seen again, in [0, 1).
        every: Epochs between two decisions. The first decision is for the second epoch.
        seed: Seed of the draws and of the order. None takes the seed given to ``seed_everything``, or 0.

    Raises:
        InputError: If an argument is out of range, or `DataSelection` does not support the run.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(max_epochs=90, callbacks=[EpsilonGreedy()])
    """

    def __init__(
        self,
        prune_ratio: float = 0.41,
        *,
        epsilon: float = 0.1,
        score_momentum: float = 0.2,
        every: int = 10,
        seed: int | None = None,
    ) -> None:
        super().__init__(prune_ratio, score_momentum=score_momentum, every=every, seed=seed)
        check(0 <= epsilon <= 1, "epsilon", epsilon, "in [0, 1]")
        self.epsilon = epsilon

    def choose(self, scores: Tensor, keep: int, generator: torch.Generator) -> Tensor:
        """Mark the samples with the highest means, and a uniform draw of the others."""
        by_chance = round(self.epsilon * keep)
        if by_chance == keep:
            return uniform_subset(len(scores), keep, generator)
        greedy = highest(scores, keep - by_chance, generator)
        return greedy | uniform_subset(len(scores), by_chance, generator, among=~greedy)

    def update(self, memory: dict[str, Tensor], indices: Tensor, losses: Tensor) -> None:
        """Update the running means (the scores)."""
        memory["scores"][indices] = running_mean(memory["scores"][indices], losses, self.score_momentum)
