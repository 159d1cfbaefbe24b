"""What two temperatures make of a teacher's logits, in numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import InputError
from .losses import ats_probabilities, derived_average, wrong_class_variance


def temperature_grid(
    logits: Tensor, labels: Tensor, *, tau_true: Sequence[float], tau_wrong: Sequence[float]
) -> list[dict[str, float]]:
    """Means over all samples of what `ats_probabilities` gives, for each pair of temperatures.

    Names are those of https://arxiv.org/abs/2210.04427. A student learns most from a teacher that leaves the wrong
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
        probabilities among themselves); ``wrong``, the share of samples whose most probable class is not the label,
        and ``left``, the share for which that is so only because of the temperatures.

    Raises:
        InputError: If there are no samples or temperatures, or a temperature is not positive.
    """
    for name, values in (("tau_true", tau_true), ("tau_wrong", tau_wrong)):
        if not values or not all(value > 0 for value in values):
            raise InputError(f"{name} must hold positive temperatures, at least one, but is {list(values)}")
    if not len(logits):
        raise InputError("there are no logits: the data has no images of this part")
    right = logits.argmax(1) == labels
    of_true = labels.unsqueeze(1)
    rows = []
    for true in tau_true:
        for wrong in tau_wrong:
            p = ats_probabilities(logits.double(), labels, tau_true=true, tau_wrong=wrong)
            among = logits.double().scatter(1, of_true, -torch.inf).div(wrong).softmax(1)
            # Not the greatest, where two classes have the same probability.
            led = p.gather(1, of_true).squeeze(1) >= p.amax(1)
            values = {
                "true_probability": p.gather(1, of_true),
                "derived_average": derived_average(p, labels),
                "derived_variance": wrong_class_variance(p, labels),
                "inherent_variance": wrong_class_variance(among, labels),
                "wrong": ~led,
                "left": right & ~led,
            }
            means = {name: float(value.double().mean()) for name, value in values.items()}
            rows.append({"tau_true": float(true), "tau_wrong": float(wrong), **means})
    return rows
