"""Statistics of a teacher's softened probabilities at two temperatures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import InputError
from ..losses import ats_probabilities, derived_average, wrong_class_variance


def temperature_grid(
    logits: Tensor, labels: Tensor, *, tau_true: Sequence[float], tau_wrong: Sequence[float]
) -> list[dict[str, float]]:
    """Means over all samples of the statistics of `ats_probabilities`, for every pair of temperatures.

    Names follow https://arxiv.org/abs/2210.04427. A student learns most from a teacher that leaves the wrong
    classes something to divide (the derived average) and divides it unevenly (the inherent variance); their product is
    the derived variance. The published theory takes population variances.

    Args:
        logits: The teacher's, shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        tau_true: Temperatures of the true class.
        tau_wrong: Temperatures of all other classes.

    Returns:
        A row for each pair: ``tau_true``, ``tau_wrong``; the means ``true_probability``, ``derived_average``,
        ``derived_variance`` (of the wrong classes' probabilities) and ``inherent_variance`` (of the wrong classes'
        probabilities among themselves); ``wrong``, the share of samples where another class is more probable than the
        label, and ``left``, the share for which that is so only because of the temperatures.

    Raises:
        InputError: If there are no samples or temperatures, a temperature is not positive, there are fewer than two
            classes, ``labels`` holds anything but classes, or a logit is not finite.
    """
    for name, values in (("tau_true", tau_true), ("tau_wrong", tau_wrong)):
        if not values or not all(value > 0 for value in values):
            raise InputError(f"{name} must hold positive temperatures, at least one, but is {list(values)}")
    _check(logits, labels)
    pairs = [(true, wrong) for true in tau_true for wrong in tau_wrong]
    sums = torch.zeros(len(pairs), len(_NAMES), dtype=torch.float64)
    # A few samples at a time, as everything below is in float64 and of the logits' shape.
    size = max(1, _CHUNK // logits.shape[1])
    for part, classes in zip(logits.split(size), labels.split(size), strict=True):
        if not part.isfinite().all():
            raise InputError(
                "logits must be finite but some are not: its network has diverged, take an earlier checkpoint"
            )
        sums += _sums(part.double(), classes, pairs).cpu()
    means = (sums / len(labels)).tolist()
    return [
        {"tau_true": float(true), "tau_wrong": float(wrong), **dict(zip(_NAMES, row, strict=True))}
        for (true, wrong), row in zip(pairs, means, strict=True)
    ]


_NAMES = ("true_probability", "derived_average", "derived_variance", "inherent_variance", "wrong", "left")

# Logits that are looked at together.
_CHUNK = 2**20


def _sums(logits: Tensor, labels: Tensor, pairs: Sequence[tuple[float, float]]) -> Tensor:
    """Sums over samples of the values that `_NAMES` names, a row for each pair of temperatures."""
    of_true = labels.unsqueeze(1)

    def leads(scores: Tensor) -> Tensor:
        # Not the first of the greatest, where two classes have the same.
        return scores.gather(1, of_true).squeeze(1) >= scores.amax(1)

    right = leads(logits)
    rows = []
    for true, wrong in pairs:
        p = ats_probabilities(logits, labels, tau_true=true, tau_wrong=wrong)
        among = logits.scatter(1, of_true, -torch.inf).div(wrong).softmax(1)
        led = leads(p)
        values = (
            p.gather(1, of_true),
            derived_average(p, labels),
            wrong_class_variance(p, labels),
            wrong_class_variance(among, labels),
            ~led,
            right & ~led,
        )
        rows.append(torch.stack([value.double().sum() for value in values]))
    return torch.stack(rows)


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        raise InputError(
            "logits must have shape (N, C), of at least two classes, and labels (N,), but they have"
            f" {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if not len(labels):
        raise InputError("there are no logits: the data has no images of this part")
    if labels.is_floating_point():
        raise InputError(f"labels must be class indices but are {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise InputError(
            f"labels must lie in 0..{logits.shape[1] - 1}, as there are {logits.shape[1]} logits, but run from {low} to"
            f" {high}: leave out samples whose class is not known"
        )
