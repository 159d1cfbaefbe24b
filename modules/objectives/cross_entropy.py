"""Cross-entropy with label smoothing."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..core.checks import check
from ._base import Objective


class CrossEntropy(Objective):
    """Cross-entropy with optional label smoothing (https://arxiv.org/abs/1512.00567).

    The loss is ``-Σ_c q_c log p_c`` with probabilities p and targets ``q = (1 - s) · label + s / C``. Labels are
    one-hot or soft.

    Args:
        label_smoothing: Share s of each label's mass that is spread evenly over all C classes, in [0, 1).

    Raises:
        InputError: If ``label_smoothing`` is outside [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "in [0, 1)")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor, context: Any = None) -> Tensor:
        """Return losses in nats, shape ``(N,)``."""
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        """Return the arguments for the printed module."""
        return f"label_smoothing={self.label_smoothing}"
