"""Fusing a sample's teacher probabilities with their mean over its class."""

from __future__ import annotations

import torch
from torch import Tensor


def class_means(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean of the teacher's probabilities over the samples of each class.

    Args:
        probabilities: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.

    Returns:
        Shape ``(C, C)``; the row of a class without samples is its one-hot vector.
    """
    classes = probabilities.shape[1]
    counts = labels.bincount(minlength=classes).unsqueeze(1)
    sums = probabilities.new_zeros(classes, classes).index_add_(0, labels, probabilities)
    return torch.where(counts > 0, sums / counts.clamp(min=1), torch.eye(classes).to(sums))


def fuse_global_labels(probabilities: Tensor, labels: Tensor, means: Tensor, *, ratio: float) -> Tensor:
    """(1 - ratio) times a sample's probabilities plus ratio times the mean of its class.

    Our reading of "fusing global information" in https://arxiv.org/abs/2405.13078, of which only the abstract was at
    hand; that there is such a blend is not certain.

    Args:
        probabilities: The teacher's, by any temperature, shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        means: Mean probabilities of each class, shape ``(C, C)``, as `class_means` gives them for the training images.
        ratio: Share of the mean, in [0, 1].

    Returns:
        Probabilities, shape ``(N, C)``; rows sum to 1.
    """
    return (1 - ratio) * probabilities + ratio * means[labels]
