"""MART: give misclassified images more weight in adversarial training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._logits import full_precision, same_classes
from .kd import kd_loss


def mart_loss(attacked_logits: Tensor, natural_logits: Tensor, labels: Tensor, *, beta: float = 6.0) -> Tensor:
    """Compute the loss of MART (https://openreview.net/forum?id=rklOg6EFwS).

    ``-log q_y - log(1.0001 - max_{k≠y} q_k) + beta · (1 - p_y) · KL(p ‖ q)``. Here p and q are the probabilities for
    the natural and the attacked image, and y is the label. Gradients flow through both images.

    Args:
        attacked_logits: Logits of the attacked images, shape ``(N, C)``.
        natural_logits: Logits of the natural images, shape ``(N, C)``.
        labels: Class indices ``(N,)``.
        beta: Weight of the divergence. The authors use 6 for a wide ResNet, the default, and 5 for a ResNet-18.

    Returns:
        Losses in nats, shape ``(N,)``.

    Raises:
        ValueError: If the shapes differ.

    Examples:
        >>> mart_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]))
        tensor([1.3861])
    """
    margin, divergence = mart_terms(attacked_logits, natural_logits, labels)
    (logits,) = full_precision(attacked_logits)
    return F.cross_entropy(logits, labels, reduction="none") + margin + beta * divergence


def mart_terms(attacked_logits: Tensor, natural_logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the terms that MART adds to the cross-entropy of the attacked images.

    Args:
        attacked_logits: Logits of the attacked images, shape ``(N, C)``.
        natural_logits: Logits of the natural images, shape ``(N, C)``.
        labels: Class indices ``(N,)``.

    Returns:
        ``-log(1.0001 - max_{k≠y} q_k)`` and ``(1 - p_y) · KL(p ‖ q)``, each of shape ``(N,)``.

    Raises:
        ValueError: If the shapes differ.
    """
    same_classes(attacked_logits, natural_logits)
    attacked, natural = full_precision(attacked_logits, natural_logits)
    label = labels.unsqueeze(1)
    wrong = attacked.softmax(1).scatter(1, label, -1.0).amax(1)
    # 1.0001 instead of 1, as in the authors' code: the term is at most log(10,000), and its gradient is finite.
    margin = -torch.log(1.0001 - wrong)
    doubt = 1 - natural.softmax(1).gather(1, label).squeeze(1)
    return margin, doubt * kd_loss(attacked, natural, temperature=1.0)
