"""Forgetting events: how often a sample that was classified correctly no longer is."""

from __future__ import annotations

import torch
from torch import Tensor

from .engine.logit_scores import LogitScores


class Forgetting(LogitScores):
    """Counts how often each training sample is forgotten (Toneva et al. 2019, https://arxiv.org/abs/1812.05159).

    A sample is forgotten when it was classified correctly in its last training pass and is not in this one. One that
    never was has the score infinity. This run trains on all samples and writes the scores; a second one trains on the
    highest with `KeepHardest`.

    Args:
        path: File to write; None is ``scores.safetensors`` in the run's folder (``trainer.default_root_dir``).
        seed: Seed of the order; None takes the one given to ``seed_everything``, or 0.

    Raises:
        InputError: If ``path`` exists, images are mixed, or the module gives no logits.
    """

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """1 for each sample that is classified correctly, 0 for the others."""
        return (logits.argmax(1) == labels).float()

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """Events so far, whether the last pass was correct, and whether any was."""
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
