"""Class weights from the effective number of samples, for long-tailed training sets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import InputError


def class_balanced_weights(counts: Sequence[int] | Tensor, *, beta: float = 0.9999) -> Tensor:
    """Compute class weights proportional to (1 - beta) / (1 - beta ** n) for n images (https://arxiv.org/abs/1901.05555).

    The weight is the inverse of the effective number of samples. Deferred re-weighting (DRW,
    https://arxiv.org/abs/1906.07413) uses it. beta 0 gives ones; as beta tends to 1, weights become proportional to 1 /
    n.

    Weights are scaled to sum to C, the number of classes. A class without images gets weight 0 and is not counted in C.
    The other classes then get the weights they would have without it.

    Args:
        counts: Training images n per class, shape ``(C,)``, such as the ``class_counts`` of our datamodules.
        beta: Overlap between the images of a class, in [0, 1). The effective number of samples is at most
            1 / (1 - beta). The default is both papers' for long-tailed CIFAR.

    Returns:
        Weights, float32, shape ``(C,)``, computed in float64, on the device of ``counts``.

    Raises:
        InputError: If ``beta`` is out of its range, or ``counts`` holds no image or a negative number.

    Examples:
        >>> class_balanced_weights([5000, 500, 50])
        tensor([0.0341, 0.2752, 2.6907])
    """
    if not 0 <= beta < 1:
        raise InputError(f"beta must be in [0, 1) but is {beta!r}: use a value near 1 to weight by 1 / n")
    numbers = torch.as_tensor(counts, dtype=torch.float64)
    if numbers.ndim != 1 or bool((numbers < 0).any()) or not bool((numbers > 0).any()):
        raise InputError(
            f"counts must hold the number of images of each class, at least one above 0, but is {numbers.tolist()}:"
            " take the class_counts of the datamodule after its setup"
        )
    # 1 - beta ** n without cancellation if beta is near 1.
    effective = -torch.expm1(numbers * math.log(beta)) if beta > 0 else torch.ones_like(numbers)
    weights = torch.where(numbers > 0, 1 / effective, 0.0)
    return (weights * ((numbers > 0).sum() / weights.sum())).float()
