"""SeTa: a window over groups of samples that slides from easy to hard, again and again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...modules.core.checks import at_least, check
from ...modules.core.errors import InputError
from ...modules.core.sampling import uniform_subset
from .engine.checks import check_delta, check_prune_ratio
from .engine.data_selection import DataSelection


class SeTa(DataSelection):
    """Trains on a window of the losses that slides from easy to hard: SeTa (CVPR 2025, https://arxiv.org/abs/2503.13385).

    Each epoch ``round((1 - prune_ratio) N)`` samples are drawn uniformly. k-means splits their last losses into
    ``num_groups`` groups, and a window of ``round(num_groups * window_scale)`` neighbouring ones stays: with G groups
    and a window of W, epoch t has those from number ``t mod (G - W + 1)`` on, counted from the easiest. The first
    epoch and the last ones have the whole draw. Nothing is weighted up.

    A drawn sample without a score always stays. Where the drawn samples have fewer than ``num_groups`` different
    scores, each is a group; so all stay if their scores are equal. Groups are not equally large: the easy ones hold
    most samples, so epochs differ much in length.

    Differences from the released code: its k-means is scikit-learn's, with a random start, and ours draws nothing (see
    :func:`kmeans_bounds`); samples without a score have the score 3 there, and equal scores are cut into groups
    of equal size. The defaults are its settings for CIFAR; for ImageNet it has ``prune_ratio=0, window_scale=0.6``.

    Args:
        prune_ratio: Share of all samples left out of each epoch by chance, in [0, 1). r in the paper.
        num_groups: Number of groups that the scores are split into, at least 1.
        window_scale: Share of the groups that stay, in (0, 1], rounded to whole groups, a half to the even number: 4
            of 5 by default. s in the paper.
        delta: Share of the run after which no group is left out, in [0, 1]; 1 leaves out to the end. Default of the
            released code.
        seed: Seed of what is drawn and of the order; None takes the one given to ``seed_everything``, or 0.

    Raises:
        InputError: If an argument is out of its range, or the run is one that `DataSelection` cannot serve.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(max_epochs=200, callbacks=[SeTa()])
    """

    weights_samples = False

    def __init__(
        self,
        prune_ratio: float = 0.1,
        *,
        num_groups: int = 5,
        window_scale: float = 0.9,
        delta: float = 0.875,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        check_prune_ratio(prune_ratio)
        at_least(1, num_groups=num_groups)
        check(0 < window_scale <= 1, "window_scale", window_scale, "in (0, 1]")
        if not round(num_groups * window_scale):
            raise InputError(
                f"window_scale {window_scale} of num_groups {num_groups} rounds to no group: raise one of them"
            )
        check_delta(delta)
        self.prune_ratio = prune_ratio
        self.num_groups = num_groups
        self.window_scale = window_scale
        self.delta = delta
        self.needs_run_length = delta < 1

    def decide(self, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """A uniform draw; of that the groups in the window, but for the beginning and the end of the run."""
        size = len(scores)
        keep = max(1, round((1 - self.prune_ratio) * size))
        chosen = uniform_subset(size, keep, self.generator(epoch)).numpy()
        if epoch and self.progress(epoch) <= self.delta:
            values = scores.numpy()
            easiest, hardest = self._window(values[chosen & np.isfinite(values)], epoch)
            # No comparison is true of a sample without a score.
            chosen &= ~((values < easiest) | (values >= hardest))
        return torch.from_numpy(np.flatnonzero(chosen)), None

    def _window(self, values: np.ndarray, epoch: int) -> tuple[float, float]:
        """The lowest score of the window, and the lowest beyond it."""
        bounds = [-np.inf, *kmeans_bounds(values, self.num_groups), np.inf]
        groups = len(bounds) - 1
        window = max(1, round(groups * self.window_scale))
        start = epoch % (groups - window + 1)
        return bounds[start], bounds[start + window]


def kmeans_bounds(values: np.ndarray, groups: int) -> np.ndarray:
    """Split numbers into groups of near ones by k-means (Lloyd's algorithm), the same at each call.

    Groups of numbers are intervals, so a round needs no pass over the numbers: their bounds are found by bisection,
    and means come from cumulative sums. The start is the best split there is at 256 quantiles and 256 evenly spaced
    places, as from the G-quantiles alone a heavy tail gave up to three times the variance within groups that
    scikit-learn's k-means gives. A number halfway between two means belongs to the upper one. No group is empty; where
    there are not more different numbers than groups, each is one.

    Args:
        values: Finite numbers ``(N,)``.
        groups: Number of groups.

    Returns:
        Lowest number of each group but the lowest, rising; fewer than ``groups - 1`` if there are too few different
        numbers.
    """
    distinct, counts = np.unique(values, return_counts=True)
    size = len(distinct)
    if size <= groups or groups == 1:
        return distinct[1:groups]
    numbers = distinct.astype(np.float64)
    numbers -= numbers.mean()
    # Number, sum and sum of squares of what lies before each place.
    sums = np.stack([np.concatenate([[0], np.cumsum(counts * numbers**power)]) for power in range(3)])
    starts = _best_start(numbers, sums, groups)
    # Each group begins at least one number after the one before it, and leaves one for each behind it.
    place = np.arange(1, groups)
    for _ in range(_MOST_ROUNDS):
        count, total, _ = np.diff(sums[:, np.concatenate([[0], starts, [size]])])
        means = total / count
        found = np.searchsorted(numbers, (means[:-1] + means[1:]) / 2)
        found = place + np.clip(np.maximum.accumulate(found - place), 0, size - groups)
        if np.array_equal(found, starts):
            break
        starts = found
    return distinct[starts]


def _best_start(numbers: np.ndarray, sums: np.ndarray, groups: int) -> np.ndarray:
    """The bounds with the least variance within groups among some hundred, by dynamic programming."""
    cells = max(_CELLS, groups)
    even = np.searchsorted(numbers, np.linspace(numbers[0], numbers[-1], cells))
    places = np.unique(np.concatenate([np.linspace(0, len(numbers), cells + 1).astype(np.int64), even]))
    # What a group from place i to place j costs: its squared distances from its mean.
    count, total, squares = (part[None, :] - part[:, None] for part in sums[:, places])
    cost = np.where(count > 0, squares - total**2 / np.where(count > 0, count, 1), np.inf)
    least, steps = cost[0], []
    for _ in range(groups - 1):
        reached = least[:, None] + cost
        steps.append(reached.argmin(0))
        least = reached.min(0)
    path = [len(places) - 1]
    for step in reversed(steps):
        path.append(step[path[-1]])
    return places[path[:0:-1]]


_CELLS = 256
_MOST_ROUNDS = 1000
