"""Epsilon-greedy: keep the samples with the highest losses, and some of the others by chance."""

from __future__ import annotations

import torch
from torch import Tensor

from ...modules.core.checks import check
from ...modules.core.sampling import uniform_subset
from .engine.running_losses import RunningLossSelection, highest, running_mean


class EpsilonGreedy(RunningLossSelection):
    """Trains on the highest losses and on some others by chance (Raju et al. 2021, https://arxiv.org/abs/2111.12621).

    Every ``every`` epochs K = ``round((1 - prune_ratio) N)`` samples are chosen for the epochs up to the next
    decision: first those with the highest running mean of their loss, ``K - round(epsilon * K)`` of them, then
    ``round(epsilon * K)`` drawn uniformly from all others. That draw is made with each decision, not with each epoch;
    ``every=1`` makes them the same. Which of equal means is left to chance. The first epoch uses every sample.
    Samples without a score count as the highest. Nothing is weighted up, so training is biased towards hard samples:
    compare with `RandomSubset`.

    The paper's own constants are unverified. The defaults are those of `UCB`, but for ``epsilon``, which is ours.

    Args:
        prune_ratio: Share of all samples left out of each epoch but the first, in [0, 1). At least one stays.
        epsilon: Share of the chosen samples that is drawn uniformly, in [0, 1]; 1 is a random subset. Unverified.
        score_momentum: Share of its old value that the running mean keeps when a sample is seen again, in [0, 1).
        every: Epochs between two decisions, the first for the second epoch.
        seed: Seed of what is drawn and of the order; None takes the one given to ``seed_everything``, or 0.

    Raises:
        InputError: If an argument is out of its range, or the run is one that `DataSelection` cannot serve.

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
        """Those with the highest means, and a uniform draw from the others."""
        by_chance = round(self.epsilon * keep)
        if by_chance == keep:
            return uniform_subset(len(scores), keep, generator)
        greedy = highest(scores, keep - by_chance, generator)
        return greedy | uniform_subset(len(scores), by_chance, generator, among=~greedy)

    def update(self, memory: dict[str, Tensor], indices: Tensor, losses: Tensor) -> None:
        """Take losses into the running mean, which is the score."""
        memory["scores"][indices] = running_mean(memory["scores"][indices], losses, self.score_momentum)
