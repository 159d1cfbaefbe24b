"""Cross-entropy against class probabilities."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Compute ``-Σ_c q_c log softmax(z)_c`` of logits z against class probabilities q.

    Args:
        logits: Logits z, shape ``(N, C)``.
        probabilities: Target distribution q, shape ``(N, C)``; rows sum to 1.

    Returns:
        Losses in nats, shape ``(N,)``.

    Raises:
        ValueError: If the shapes differ.

    Examples:
        >>> soft_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]))
        tensor([0.6931])
    """
    if logits.shape != probabilities.shape:
        raise ValueError(
            f"probabilities must have the logits' shape {tuple(logits.shape)} but got {tuple(probabilities.shape)}"
        )
    return F.cross_entropy(logits, probabilities, reduction="none")
