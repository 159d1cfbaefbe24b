"""EL2N: distance between predicted probabilities and label, early in training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ...modules.core.checks import at_least
from ...modules.core.errors import InputError
from .engine.logit_scores import LogitScores


class EL2N(LogitScores):
    """Scores each training sample by the norm of its error: EL2N (Paul et al. 2021, https://arxiv.org/abs/2107.07075).

    The score is ``||softmax(logits) - onehot(label)||_2`` in the sample's training pass, averaged over some early
    epochs. This run trains on all samples and writes the scores. A second run trains on the highest scores with
    `KeepHardest`; it can also average the files of several runs. The paper averages about 10 runs, at epochs 10 to 20.

    Args:
        path: File to write. None writes ``scores.safetensors`` in the run's folder (``trainer.default_root_dir``).
        first_epoch: First epoch that is scored, counted from 0. The paper scores at epochs 10 to 20; averaging over
            this range is our reading (unverified). Use less in a short run.
        epochs: Number of epochs to score, fewer if the run ends earlier. The default of 10 covers the paper's range.
        seed: Seed of the order. None takes the seed given to ``seed_everything``, or 0.

    Raises:
        InputError: If an argument is out of range, the run ends before ``first_epoch``, ``path`` exists, images are
            mixed, or the module returns no logits.
    """

    def __init__(
        self, path: str | None = None, *, first_epoch: int = 10, epochs: int = 10, seed: int | None = None
    ) -> None:
        super().__init__(path, seed=seed)
        at_least(0, first_epoch=first_epoch)
        at_least(1, epochs=epochs)
        self.first_epoch = first_epoch
        self.epochs = epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a run that ends before ``first_epoch``."""
        short = 0 < (trainer.max_epochs or 0) <= self.first_epoch and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if stage == "fit" and short:
            raise InputError(
                f"first_epoch {self.first_epoch} is after the last of max_epochs {trainer.max_epochs}:"
                " lower it, or train longer"
            )
        super().setup(trainer, pl_module, stage)

    def measures(self, epoch: int) -> bool:
        """Return whether the epoch is scored."""
        return self.first_epoch <= epoch < self.first_epoch + self.epochs

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the error norms ``(N,)``."""
        probabilities = logits.float().softmax(1)
        return (probabilities - F.one_hot(labels, logits.shape[1])).norm(dim=1)

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """Return mean scores, and the number of epochs in each mean."""
        return {**super().new_memory(size), "count": torch.zeros(size, dtype=torch.int32)}

    def update(self, memory: dict[str, Tensor], indices: Tensor, losses: Tensor) -> None:
        """Add an epoch's norms to the means."""
        memory["count"][indices] += 1
        old = memory["scores"][indices].nan_to_num(0)
        memory["scores"][indices] = old + (losses - old) / memory["count"][indices]
