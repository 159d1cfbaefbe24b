"""Forgetting events: count how often a correctly classified sample is misclassified later."""

from __future__ import annotations

import torch
from torch import Tensor

from .engine.logit_scores import LogitScores


class Forgetting(LogitScores):
    """Counts how often each training sample is forgotten (Toneva et al. 2019, https://arxiv.org/abs/1812.05159).

    A sample is forgotten when it was classified correctly in its last training pass and is misclassified in this one. A
    sample that was never classified correctly has the score infinity. This run trains on all samples and writes the
    scores. A second run trains on the highest scores with `KeepHardest`.

    Args:
        path: File to write. None writes ``scores.safetensors`` in the run's folder (``trainer.default_root_dir``).
        seed: Seed of the order. None takes the seed given to ``seed_everything``, or 0.

    Raises:
        InputError: If ``path`` exists, images are mixed, or the module returns no logits.
    """

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return 1 for each correctly classified sample, 0 for the others."""
        return (logits.argmax(1) == labels).float()

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """Return the number of events, the result of the last pass, and a mark for samples that were ever correct."""
        return {
            **super().new_memory(size),
            "events": torch.zeros(size, dtype=torch.int32),
            "correct": torch.zeros(size, dtype=torch.bool),
            "learned": torch.zeros(size, dtype=torch.bool),
        }

    def update(self, memory: dict[str, Tensor], indices: Tensor, losses: Tensor) -> None:
        """Count an epoch's events."""
        correct = losses > 0
        memory["events"][indices] += (memory["correct"][indices] & ~correct).int()
        memory["correct"][indices] = correct
        memory["learned"][indices] |= correct
        events = memory["events"][indices].float()
        memory["scores"][indices] = torch.where(memory["learned"][indices], events, torch.inf)
