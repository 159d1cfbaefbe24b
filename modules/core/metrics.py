"""Metrics that torchmetrics does not have."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torchmetrics import Metric

from .errors import InputError

CIFAR10_GROUPS: Mapping[str, tuple[int, int]] = MappingProxyType({"head": (0, 2), "mid": (3, 6), "tail": (7, 9)})
"""Groups of classes that DeiT-LT (https://arxiv.org/abs/2404.02900) reports for long-tailed CIFAR-10."""

CIFAR100_GROUPS: Mapping[str, tuple[int, int]] = MappingProxyType({"head": (0, 35), "mid": (36, 70), "tail": (71, 99)})
"""Groups of classes that DeiT-LT (https://arxiv.org/abs/2404.02900) reports for long-tailed CIFAR-100."""


class GroupAccuracy(Metric):
    """Accuracy for groups of classes, such as the head, middle and tail of a long-tailed data set.

    A sample belongs to every group that contains its label, whatever the prediction. Labels outside all groups, such as
    an unknown label of -1, are ignored. Counts are summed over processes. Only `compute` waits for the device.

    Args:
        groups: First and last class of every group, both included, by group name; groups may overlap. The published
            groups are `CIFAR10_GROUPS` and `CIFAR100_GROUPS`.
        num_classes: Number of classes C.

    Raises:
        InputError: If there is no group, or its classes are reversed or outside 0..C-1.

    Examples:
        >>> accuracy = GroupAccuracy({"head": (0, 0), "tail": (1, 2)}, num_classes=3)
        >>> accuracy.update(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 2, 2]))
        >>> {name: round(value.item(), 4) for name, value in accuracy.compute().items()}
        {'head': 1.0, 'tail': 0.3333}
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    correct: Tensor
    total: Tensor
    first: Tensor
    last: Tensor

    def __init__(self, groups: Mapping[str, tuple[int, int]], *, num_classes: int) -> None:
        super().__init__()
        if not groups:
            raise InputError(f"groups must name at least one group of classes but is {dict(groups)!r}")
        for name, (first, last) in groups.items():
            if not 0 <= first <= last < num_classes:
                raise InputError(
                    f"groups[{name!r}] must be a first and a last class, rising, in 0..{num_classes - 1}"
                    f" but is {(first, last)}"
                )
        self.groups = {name: (first, last) for name, (first, last) in groups.items()}
        self.num_classes = num_classes
        firsts, lasts = zip(*self.groups.values(), strict=True)
        self.register_buffer("first", torch.tensor(firsts), persistent=False)
        self.register_buffer("last", torch.tensor(lasts), persistent=False)
        for state in ("correct", "total"):
            self.add_state(state, torch.zeros(len(groups), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            predictions: Logits or probabilities, shape ``(N, C)``, or class indices, shape ``(N,)``.
            labels: Class indices, shape ``(N,)``.

        Raises:
            ValueError: If the shapes differ from these.
        """
        if labels.ndim != 1 or predictions.shape not in ((len(labels), self.num_classes), labels.shape):
            raise ValueError(
                f"predictions must have shape (N, {self.num_classes}) or (N,), and labels (N,), but got"
                f" {tuple(predictions.shape)} and {tuple(labels.shape)}"
            )
        classes = predictions.argmax(1) if predictions.ndim == 2 else predictions
        member = (labels.unsqueeze(1) >= self.first) & (labels.unsqueeze(1) <= self.last)
        self.total += member.sum(0)
        self.correct += (member & (classes == labels).unsqueeze(1)).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Return the accuracy of every group, in [0, 1], by name; NaN for a group without samples."""
        return dict(zip(self.groups, self.correct / self.total, strict=True))
