"""The decision which samples an epoch trains on."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class SelectionRule(ABC):
    """Base of rules that choose the samples of an epoch by the scores of all samples."""

    needs_losses = True
    """Whether the rule needs per-sample losses, as scores or to weight them."""

    weights_samples = True
    """Whether the rule may give weights other than 1; every ``self.reduce`` then needs one loss per sample."""

    needs_run_length = False
    """Whether the rule calls :meth:`progress`."""

    shortens_epochs = True
    """Whether the rule leaves samples out."""

    threshold: float | None = None
    """What scores were compared with in the last decision, for the log."""

    @abstractmethod
    def decide(self, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Choose the samples of an epoch.

        Called after the losses of the epoch before were taken in, perhaps again for the same epoch, and must then
        choose the same: random numbers come from :meth:`generator`, and what is kept for later from ``memory``.

        Args:
            scores: The samples' scores, float32 ``(N,)``; NaN for one that has none yet.
            epoch: The epoch, from 0.

        Returns:
            Indices of the chosen samples ``(K,)``, without repeats and in any order that does not depend on chance,
            as they are shuffled after; and their weights ``(K,)``, or None if all are 1.
        """

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """Return the values kept of each sample before the first epoch, by name; the rule decides by ``"scores"``."""
        return {"scores": torch.full((size,), torch.nan, dtype=torch.float32)}

    def update(self, memory: dict[str, Tensor], indices: Tensor, losses: Tensor) -> None:
        """Take in an epoch's losses, in place.

        Args:
            memory: What :meth:`new_memory` gave.
            indices: The samples that were trained on ``(K,)``, without repeats.
            losses: Their unweighted losses ``(K,)``, float32, all finite.
        """
        memory["scores"][indices] = losses
