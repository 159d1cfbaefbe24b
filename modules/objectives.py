"""What a recipe minimises: one loss per sample, from logits, labels and what is known about the batch."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .errors import InputError


class Objective(nn.Module):
    """Base of everything a recipe can minimise.

    A recipe calls :meth:`context` once per batch and :meth:`forward` once per classifier: once in
    `Classification`, once per local head in local learning. Labels are class indices ``(N,)`` or, after
    Mixup/CutMix, class probabilities ``(N, C)``.
    """

    accepts_soft_labels: bool = True
    """False makes a recipe with Mixup/CutMix refuse this objective when it is built."""

    def context(self, images: Tensor, labels: Tensor) -> Any:
        """What the losses of this batch depend on besides logits and labels, e.g. teacher logits; no gradient.

        Args:
            images: Shape ``(N, C, H, W)``, as the network sees them.
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.

        Returns:
            Anything; handed to :meth:`forward` as it is. None by default.
        """
        return None

    def forward(self, logits: Tensor, labels: Tensor, context: Any = None) -> Tensor:
        """One loss per sample; no side effects.

        Args:
            logits: Shape ``(N, C)``.
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.
            context: The result of :meth:`context` for the same batch.

        Returns:
            Losses, shape ``(N,)``.
        """
        raise NotImplementedError


class CrossEntropy(Objective):
    """Cross-entropy with optional label smoothing (https://arxiv.org/abs/1512.00567).

    Args:
        label_smoothing: Share of each label's mass that is spread evenly over all C classes, in [0, 1).

    Raises:
        InputError: If ``label_smoothing`` is outside [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing must lie in [0, 1) but is {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor, context: Any = None) -> Tensor:
        """Losses in nats, shape ``(N,)``."""
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        """Shown in the printed module."""
        return f"label_smoothing={self.label_smoothing}"
