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
    """Compute means of statistics of the `ats_probabilities` over all samples, for each pair of temperatures.

    The names are from https://arxiv.org/abs/2210.04427. A student learns most if the teacher gives the wrong classes a
    large total probability (derived average) and divides it unevenly (inherent variance). For each sample the derived
    variance is ((C - 1) · derived average)² · inherent variance. The paper's theory uses population variances.

    Args:
        logits: The teacher's logits, shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        tau_true: Temperatures of the true class.
        tau_wrong: Temperatures of all other classes.

    Returns:
        One row per pair: ``tau_true``, ``tau_wrong`` and six means. ``true_probability`` is the label's probability,
        ``derived_average`` and ``derived_variance`` are mean and variance of the wrong classes' probabilities.
        ``inherent_variance`` is their variance after division by their sum. ``wrong`` is the share of samples where
        another class is more probable than the label. ``left`` is the share where this is true after scaling only.

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
    # A few samples at a time, because all tensors below are float64 and have the logits' shape.
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

# Number of logits that are processed at once.
_CHUNK = 2**20


def _sums(logits: Tensor, labels: Tensor, pairs: Sequence[tuple[float, float]]) -> Tensor:
    """Return sums over samples of the statistics in `_NAMES`, one row per pair of temperatures."""
    of_true = labels.unsqueeze(1)

    def leads(scores: Tensor) -> Tensor:
        # Not argmax: if two classes are equal, the label still leads.
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
