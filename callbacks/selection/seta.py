"""SeTa: a window over groups of samples that slides repeatedly from easy to hard."""

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

    In each epoch, ``round((1 - prune_ratio) N)`` samples are drawn uniformly. k-means splits their last losses into G =
    ``num_groups`` groups, ordered from easy to hard. A window of W = ``round(num_groups * window_scale)`` neighboring
    groups is used; in epoch t it starts at group ``t mod (G - W + 1)``. The first and the last epochs use the whole
    draw. Losses are not weighted.

    A drawn sample without a score always stays. If the drawn samples have at most ``num_groups`` different scores, each
    score is a group; if all scores are equal, all samples stay. Easy groups hold most samples, so the length of the
    epochs varies much.

    Differences from the released code: its k-means is scikit-learn's, with a random start, and ours is deterministic
    (see :func:`kmeans_bounds`). There, samples without a score have the score 3, and equal scores are cut into groups
    of equal size. The defaults are its settings for CIFAR; for ImageNet it uses ``prune_ratio=0, window_scale=0.6``.

    Args:
        prune_ratio: Share of all samples left out per epoch at random, in [0, 1). The paper calls it r.
        num_groups: Number of groups of scores, at least 1.
        window_scale: Share of the groups in the window, in (0, 1]. The number of groups is rounded, halves to even: 4
            of 5 by default. The paper calls it s.
        delta: Share of the run after which no group is left out, in [0, 1]; with 1 groups are left out to the end. The
            default is from the released code.
        seed: Seed of the draws and of the order. None takes the seed given to ``seed_everything``, or 0.

    Raises:
        InputError: If an argument is out of range, or `DataSelection` does not support the run.

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
        """Draw samples uniformly; between the first and the last epochs keep only the groups in the window."""
        size = len(scores)
        keep = max(1, round((1 - self.prune_ratio) * size))
        chosen = uniform_subset(size, keep, self.generator(epoch)).numpy()
        if epoch and self.progress(epoch) <= self.delta:
            values = scores.numpy()
            easiest, hardest = self._window(values[chosen & np.isfinite(values)], epoch)
            # Both comparisons are false for a sample without a score (NaN), so it stays.
            chosen &= ~((values < easiest) | (values >= hardest))
        return torch.from_numpy(np.flatnonzero(chosen)), None

    def _window(self, values: np.ndarray, epoch: int) -> tuple[float, float]:
        """Return the lowest score of the window, and the lowest score above it."""
        bounds = [-np.inf, *kmeans_bounds(values, self.num_groups), np.inf]
        groups = len(bounds) - 1
        window = max(1, round(groups * self.window_scale))
        start = epoch % (groups - window + 1)
        return bounds[start], bounds[start + window]


def kmeans_bounds(values: np.ndarray, groups: int) -> np.ndarray:
    """Split numbers into groups by one-dimensional k-means (Lloyd's algorithm), deterministically.

    Groups of sorted numbers are intervals. A round therefore finds the bounds by bisection and the means from
    cumulative sums, without a pass over the numbers.

    The start is the best split among 256 quantiles and 256 evenly spaced values. Starting from the G-quantiles alone
    gave, for heavy tails, up to three times the within-group variance of scikit-learn's k-means.

    A number halfway between two means belongs to the upper group. No group is empty. If there are at most ``groups``
    different numbers, each is a group.

    Args:
        values: Finite numbers ``(N,)``.
        groups: Number of groups.

    Returns:
        Lowest number of every group except the lowest group, ascending; fewer than ``groups - 1`` if there are too few
        different numbers.
    """
    distinct, counts = np.unique(values, return_counts=True)
    size = len(distinct)
    if size <= groups or groups == 1:
        return distinct[1:groups]
    numbers = distinct.astype(np.float64)
    numbers -= numbers.mean()
    # Count, sum and sum of squares of the numbers before each place.
    sums = np.stack([np.concatenate([[0], np.cumsum(counts * numbers**power)]) for power in range(3)])
    starts = _best_start(numbers, sums, groups)
    # Each group begins at least one number after the group before it, and leaves one number for each later group.
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
    """Return the bounds with the least within-group variance among some hundred places, by dynamic programming."""
    cells = max(_CELLS, groups)
    even = np.searchsorted(numbers, np.linspace(numbers[0], numbers[-1], cells))
    places = np.unique(np.concatenate([np.linspace(0, len(numbers), cells + 1).astype(np.int64), even]))
    # Cost of a group from place i to place j: the sum of squared distances from its mean.
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
