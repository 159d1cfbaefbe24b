"""Statistics of a teacher's probabilities of the wrong classes."""

from __future__ import annotations

from torch import Tensor

from ._logits import is_label


def derived_average(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean probability of the wrong classes, (1 - p(label)) / (C - 1) (https://arxiv.org/abs/2210.04427).

    Args:
        probabilities: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.

    Returns:
        Shape ``(N,)``.
    """
    return probabilities.masked_fill(is_label(probabilities, labels), 0).sum(1) / (probabilities.shape[1] - 1)


def wrong_class_variance(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Variance (population) of the probabilities of the wrong classes, the paper's derived variance.

    A teacher distils well if it tells the wrong classes apart (https://arxiv.org/abs/2210.04427).

    Args:
        probabilities: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.

    Returns:
        Shape ``(N,)``.
    """
    wrong = ~is_label(probabilities, labels)
    deviation = (probabilities - derived_average(probabilities, labels).unsqueeze(1)) * wrong
    return deviation.square().sum(1) / (probabilities.shape[1] - 1)
