"""Statistics of a teacher's probabilities of the wrong classes."""

from __future__ import annotations

from torch import Tensor

from ._logits import is_label


def derived_average(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean probability of the wrong classes, (1 - p(label)) / (C - 1) (https://arxiv.org/abs/2210.04427).

    Args:
        probabilities: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.

    Returns:
        Shape ``(N,)``.
    """
    return probabilities.masked_fill(is_label(probabilities, labels), 0).sum(1) / (probabilities.shape[1] - 1)


def wrong_class_variance(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Compute the population variance of the wrong classes' probabilities, the paper's derived variance.

    A larger variance means that the teacher distinguishes the wrong classes, which helps distillation
    (https://arxiv.org/abs/2210.04427).

    Args:
        probabilities: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.

    Returns:
        Shape ``(N,)``.
    """
    wrong = ~is_label(probabilities, labels)
    deviation = (probabilities - derived_average(probabilities, labels).unsqueeze(1)) * wrong
    return deviation.square().sum(1) / (probabilities.shape[1] - 1)
