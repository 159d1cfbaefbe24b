"""UCB: keep the samples with a high or an unsteady loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ...modules.core.checks import not_negative
from .engine.running_losses import RunningLossSelection, highest, running_mean


class UCB(RunningLossSelection):
    """Trains on the samples whose loss is high or unsteady (Raju et al. 2021, https://arxiv.org/abs/2111.12621).

    A sample's score is the upper confidence bound ``m + confidence * v``, where ``m`` is the running mean of its loss
    and ``v`` that of the squared deviation of a loss from the mean before it. Every ``every`` epochs the
    ``round((1 - prune_ratio) N)`` highest scores are chosen for the epochs up to the next decision; which of equal
    scores is left to chance. The first epoch uses every sample. Samples without a score count as the highest. Nothing
    is weighted up, so training is biased towards hard samples: compare with `RandomSubset`.

    The defaults are those of the implementation that InfoBatch's authors compare with on ImageNet; the constants of
    the UCB paper itself are unverified. Differences from that implementation: a first loss deviates from nothing,
    where theirs deviates from 0; and there is no chance in the order of equal scores there.

    Args:
        prune_ratio: Share of all samples left out of each epoch but the first, in [0, 1). At least one stays. 0.41 in
            the InfoBatch authors' code.
        confidence: How much an unsteady loss counts, at least 0; 0 keeps the highest running means. 1 in the
            InfoBatch authors' code.
        score_momentum: Share of their old values that running mean and deviation keep when a sample is seen again,
            in [0, 1). 0.2 in the InfoBatch authors' code, whose new loss weighs 0.8.
        every: Epochs between two decisions, the first for the second epoch. 10 in the InfoBatch authors' code, for 90
            epochs.
        seed: Seed of the choice between equal scores and of the order; None takes the one given to
            ``seed_everything``, or 0.

    Raises:
        InputError: If an argument is out of its range, or the run is one that `DataSelection` cannot serve.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(max_epochs=90, callbacks=[UCB()])
    """

    def __init__(
        self,
        prune_ratio: float = 0.41,
        *,
        confidence: float = 1.0,
        score_momentum: float = 0.2,
        every: int = 10,
        seed: int | None = None,
    ) -> None:
        super().__init__(prune_ratio, score_momentum=score_momentum, every=every, seed=seed)
        not_negative(confidence=confidence)
        self.confidence = confidence

    def choose(self, scores: Tensor, keep: int, generator: torch.Generator) -> Tensor:
        """Those with the highest scores."""
        return highest(scores, keep, generator)

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """The running means beside the scores made of them."""
        known = super().new_memory(size)
        return {
            **known,
            "means": torch.full_like(known["scores"], torch.nan),
            "deviations": torch.zeros_like(known["scores"]),
        }

    def update(self, memory: dict[str, Tensor], indices: Tensor, losses: Tensor) -> None:
        """Take losses into the running means."""
        means, deviations = memory["means"][indices], memory["deviations"][indices]
        squared = (losses - means).nan_to_num(0).square()
        memory["means"][indices] = means = running_mean(means, losses, self.score_momentum)
        memory["deviations"][indices] = deviations = running_mean(deviations, squared, self.score_momentum)
        memory["scores"][indices] = means + self.confidence * deviations
