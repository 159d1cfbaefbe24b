"""Cross-entropy for teachers that should distinguish the wrong classes."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..core.checks import not_negative, positive
from ..losses import wrong_class_variance
from ._base import Objective


class VariedCrossEntropy(Objective):
    """Cross-entropy minus ``variance_weight`` times the variance of the wrong classes' softened probabilities.

    It is for training teachers, because large teachers tend to give all wrong classes the same small probability. This
    is our reading of "regularising teachers" in https://arxiv.org/abs/2405.13078. Only the abstract was available, so
    the paper's term may differ. A recipe logs the terms ``ce`` and ``wrong_class_variance``.

    Args:
        variance_weight: Weight of the variance. The variance lies between 0 and (C - 2) / (C - 1)², which is 0.0988 for
            10 classes. The default is ours; the paper's value is unknown to us.
        temperature: Divisor of the logits for the variance. The default is ours.

    Raises:
        InputError: If ``variance_weight`` is negative or ``temperature`` not positive.
    """

    accepts_soft_labels = False

    def __init__(self, variance_weight: float = 1.0, temperature: float = 4.0) -> None:
        super().__init__()
        not_negative(variance_weight=variance_weight)
        positive(temperature=temperature)
        self.variance_weight = variance_weight
        self.temperature = temperature

    def forward(self, logits: Tensor, labels: Tensor, context: Any = None) -> Tensor:
        """Return losses, shape ``(N,)``."""
        return self.parts(logits, labels, context)[0]

    def parts(self, logits: Tensor, labels: Tensor, context: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return losses ``(N,)`` and the terms ``ce`` and ``wrong_class_variance``."""
        ce = F.cross_entropy(logits, labels, reduction="none")
        variance = wrong_class_variance((logits.float() / self.temperature).softmax(1), labels)
        return ce - self.variance_weight * variance, {"ce": ce, "wrong_class_variance": variance}

    def extra_repr(self) -> str:
        """Return the arguments for the printed module."""
        return f"variance_weight={self.variance_weight}, temperature={self.temperature}"
