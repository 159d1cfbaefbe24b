"""UCB: keep the samples with a high or fluctuating loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ...modules.core.checks import not_negative
from .engine.running_losses import RunningLossSelection, highest, running_mean


class UCB(RunningLossSelection):
    """Trains on the samples with a high or fluctuating loss (Raju et al. 2021, https://arxiv.org/abs/2111.12621).

    A sample's score is the upper confidence bound ``m + confidence * v``. ``m`` is the running mean of its loss. ``v``
    is the running mean of the squared difference between a loss and the mean before it.

    Every ``every`` epochs, the ``round((1 - prune_ratio) N)`` samples with the highest scores are chosen, and used
    until the next decision. Ties are broken at random. The first epoch uses every sample. Samples without a score count
    as the highest. Losses are not weighted, so training is biased towards hard samples: compare with `RandomSubset`.

    The defaults are from the implementation that InfoBatch's authors compare with on ImageNet. The constants of the UCB
    paper itself are unverified. Two details differ from that implementation: a first loss has deviation 0 (theirs is
    its square), and ties are broken at random (theirs are not).

    Args:
        prune_ratio: Share of all samples left out per epoch, except in the first, in [0, 1). At least one sample stays.
            0.41 in the InfoBatch authors' code.
        confidence: Weight of the deviation, at least 0; 0 keeps the highest running means. 1 in the InfoBatch authors'
            code.
        score_momentum: Share of the old value that running mean and deviation keep when a sample is seen again, in
            [0, 1). The InfoBatch authors' code uses 0.2.
        every: Epochs between two decisions. The first decision is for the second epoch. 10 in the InfoBatch authors'
            code, for 90 epochs.
        seed: Seed of the choice between equal scores and of the order. None takes the seed given to
            ``seed_everything``, or 0.

    Raises:
        InputError: If an argument is out of range, or `DataSelection` does not support the run.

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
        """Mark the samples with the highest scores."""
        return highest(scores, keep, generator)

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """Return empty scores and the running means behind them."""
        known = super().new_memory(size)
        return {
            **known,
            "means": torch.full_like(known["scores"], torch.nan),
            "deviations": torch.zeros_like(known["scores"]),
        }

    def update(self, memory: dict[str, Tensor], indices: Tensor, losses: Tensor) -> None:
        """Update the running means and the scores."""
        means, deviations = memory["means"][indices], memory["deviations"][indices]
        squared = (losses - means).nan_to_num(0).square()
        memory["means"][indices] = means = running_mean(means, losses, self.score_momentum)
        memory["deviations"][indices] = deviations = running_mean(deviations, squared, self.score_momentum)
        memory["scores"][indices] = means + self.confidence * deviations
