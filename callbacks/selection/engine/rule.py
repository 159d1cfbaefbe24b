"""Decision of the samples that an epoch trains on."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class SelectionRule(ABC):
    """Base class of rules that choose the samples of an epoch by the scores of all samples."""

    needs_losses = True
    """True if the rule needs per-sample losses, as scores or to weight them."""

    weights_samples = True
    """True if the rule may give weights other than 1; ``self.reduce`` then needs one loss per sample."""

    needs_run_length = False
    """True if the rule calls :meth:`progress`."""

    shortens_epochs = True
    """True if the rule leaves samples out."""

    threshold: float | None = None
    """Bound that the scores were compared with in the last decision, for the log."""

    @abstractmethod
    def decide(self, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Choose the samples of an epoch.

        It is called after the last epoch's losses are in the scores. It may be called again for the same epoch and must
        then choose the same samples: take random numbers from :meth:`generator`, and keep other state in ``memory``.

        Args:
            scores: Score per sample, float32 ``(N,)``; NaN for a sample without a score.
            epoch: The epoch, from 0.

        Returns:
            Indices of the chosen samples ``(K,)``, without duplicates, in a deterministic order (they are shuffled
            later), and their weights ``(K,)``, or None if all are 1.
        """

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """Return the initial values per sample, by name; the rule decides by ``"scores"``."""
        return {"scores": torch.full((size,), torch.nan, dtype=torch.float32)}

    def update(self, memory: dict[str, Tensor], indices: Tensor, losses: Tensor) -> None:
        """Update the memory in place with an epoch's losses.

        Args:
            memory: Values made by :meth:`new_memory`.
            indices: The samples that were trained on ``(K,)``, without duplicates.
            losses: Their unweighted losses ``(K,)``, float32, all finite.
        """
        memory["scores"][indices] = losses
