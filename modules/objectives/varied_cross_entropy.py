"""Cross-entropy for a teacher that is to tell the wrong classes apart."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..core.checks import not_negative, positive
from ..losses import wrong_class_variance
from ._base import Objective


class VariedCrossEntropy(Objective):
    """Cross-entropy minus ``variance_weight`` times the variance of the wrong classes' softened probabilities.

    For training teachers: large ones, left alone, give all wrong classes the same small probability. Our reading of
    "regularising teachers" in https://arxiv.org/abs/2405.13078. Only its abstract was at hand; it is not certain that
    the paper's term is this one. A recipe logs the terms ``ce`` and ``wrong_class_variance``.

    Args:
        variance_weight: Weight of the variance, which lies between 0 and (C - 2) / (C - 1)², 0.0988 for 10 classes
            (ours; the paper's is not known to us).
        temperature: Divides the logits before the variance is taken (ours).

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
        """Losses, shape ``(N,)``."""
        return self.parts(logits, labels, context)[0]

    def parts(self, logits: Tensor, labels: Tensor, context: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses ``(N,)``, and the terms ``ce`` and ``wrong_class_variance``."""
        ce = F.cross_entropy(logits, labels, reduction="none")
        variance = wrong_class_variance((logits.float() / self.temperature).softmax(1), labels)
        return ce - self.variance_weight * variance, {"ce": ce, "wrong_class_variance": variance}

    def extra_repr(self) -> str:
        """Shown in the printed module."""
        return f"variance_weight={self.variance_weight}, temperature={self.temperature}"
