"""Distances between class means, for classes of any size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ClassSums(NamedTuple):
    """Sums over the samples of each class; sums of parts of a batch can be added.

    Attributes:
        sums: Shape ``(C, D)``.
        counts: Number of samples per class, shape ``(C,)``.
    """

    sums: Tensor
    counts: Tensor

    def __add__(self, other: ClassSums) -> ClassSums:  # type: ignore[override]
        return ClassSums(self.sums + other.sums, self.counts + other.counts)


def class_sums(values: Tensor, labels: Tensor, num_classes: int) -> ClassSums:
    """Sum values ``(N, D)`` over the samples of every class."""
    sums = values.new_zeros(num_classes, values.shape[1]).index_add(0, labels, values)
    # `bincount` makes the host wait for the device.
    counts = values.new_zeros(num_classes).index_add(0, labels, torch.ones_like(labels, dtype=values.dtype))
    return ClassSums(sums, counts)


def mean_distance(real: ClassSums, synthetic: ClassSums) -> Tensor:
    """Compute the squared Euclidean distance between two class means, summed over the classes present in both."""
    difference = real.sums / real.counts.clamp(min=1)[:, None] - synthetic.sums / synthetic.counts.clamp(min=1)[:, None]
    shared = (real.counts > 0) & (synthetic.counts > 0)
    return (difference.square().sum(1) * shared).sum()
