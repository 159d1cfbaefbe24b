"""InfoBatch: leave out some samples that are learned already, and give the remaining ones a higher weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...modules.core.checks import check
from ...modules.core.errors import InputError
from ...modules.core.sampling import uniform_subset
from .engine.checks import check_delta, check_prune_ratio
from .engine.data_labels import labels_of
from .engine.data_selection import DataSelection
from .engine.running_losses import running_mean


def infobatch_plan(
    scores: Tensor, seen: Tensor, *, prune_ratio: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the samples of one epoch and their weights (InfoBatch, https://arxiv.org/abs/2303.04947).

    A sample is easy if its score is below the mean. Each call drops a random share ``prune_ratio`` of the M easy
    samples. The k that stay get weight ``M / k``; all other samples get weight 1. The weights then sum to N, and the
    expected sum of weighted gradients equals the sum over all samples. Scores that are not finite count as not seen.

    Args:
        scores: Last losses of the samples, shape ``(N,)``, on the CPU.
        seen: Whether a sample has a score, bool, shape ``(N,)``. A sample not seen yet always stays.
        prune_ratio: Share of the easy samples to leave out, in [0, 1). The paper calls it r and uses 0.5. At least one
            easy sample stays.
        generator: Source of randomness.

    Returns:
        Indices ``(K,)`` of the samples that stay, in ascending order, and their weights ``(K,)``, float32.

    Raises:
        InputError: If ``prune_ratio`` is outside [0, 1) or the shapes differ.

    Example:
        >>> scores = torch.tensor([0.1, 0.2, 0.3, 0.2, 5.0])
        >>> seen = torch.ones(5, dtype=torch.bool)
        >>> indices, weights = infobatch_plan(scores, seen, prune_ratio=0.5, generator=torch.Generator())
        >>> len(indices), weights.tolist()
        (3, [2.0, 2.0, 1.0])
    """
    if scores.ndim != 1 or scores.shape != seen.shape:
        raise InputError(f"scores and seen must both be of shape (N,) but are {(*scores.shape,)}, {(*seen.shape,)}")
    check_prune_ratio(prune_ratio)
    valid = _valid(scores, seen)
    return _thin(scores.numpy(), valid, [_mean(scores.numpy(), valid)], [prune_ratio], generator, closed=False)


class InfoBatch(DataSelection):
    """Trains on fewer samples an epoch without bias: InfoBatch (ICLR 2024, https://arxiv.org/abs/2303.04947).

    In each epoch, a random share ``prune_ratio`` of the easy samples is left out. A sample is easy if its last loss is
    below the mean. The losses of the remaining easy samples are scaled up to compensate. The first and the last epochs
    use every sample. :func:`infobatch_plan` is the rule; `DataSelection` lists the requirements on module and data.

    ``prune_ratio`` is a share of the easy samples only: 0.5 leaves out a quarter to a third of all samples. Compare the
    result with `RandomSubset` and with a shorter run on all samples, both with the same number of samples processed.

    Differences from the released code, each tested:

    - Exactly k of M easy samples stay and weigh M / k, so the weights sum to N.
    - A sample without a score always stays.
    - A loss that is not finite is not used as a score.
    - The scores of all processes are merged once an epoch.
    - ``prune_ratio`` above 0.9 is used as given (there it is set to 0.9).
    - Sample indices are never converted to the loss's dtype.

    Args:
        prune_ratio: Share of the easy samples to leave out, in [0, 1). With ``percentiles``, one share per percentile.
        delta: Share of the run after which every sample is used again, in [0, 1]; 1 prunes to the end. The default is
            from paper and released code.
        warmup_epochs: Epochs at the beginning that use every sample; at least one, as there are no scores yet. The
            released ImageNet run of Swin-T uses 20.
        score_momentum: Share of its old value that a score keeps when a sample is seen again, in [0, 1). 0, as in the
            paper, uses the last loss. Higher values smooth scores that augmentation makes noisy.
        percentiles: Bounds that replace the mean, ascending, in (0, 100]. Samples up to the first bound are pruned by
            the first ``prune_ratio``, samples from there up to the second bound by the second. The released ImageNet
            code uses ``[20, 85]`` with ``[0.75, 0.5]``. A score equal to a bound counts as below it, as there.
            Percentiles are robust to outliers, the mean is not.
        per_class: Compare a sample with the mean of its class instead of the mean of all. Classes that are learned
            early are then not pruned more than others.
        labels: Classes for ``per_class``: the name of an attribute or column of the data set, the number of the tensor
            in a `TensorDataset`, or one class index per sample. None looks for ``labels``, ``targets`` or ``label``,
            also in parts of a `Subset` or `ConcatDataset`.
        seed: Seed of the draws and of the order. None takes the seed given to ``seed_everything``, or 0.

    Raises:
        InputError: If an argument is out of range, or `DataSelection` does not support the run.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(max_epochs=200, callbacks=[InfoBatch()])
    """

    def __init__(
        self,
        prune_ratio: float | list[float] = 0.5,
        *,
        delta: float = 0.875,
        warmup_epochs: int = 1,
        score_momentum: float = 0.0,
        percentiles: list[float] | None = None,
        per_class: bool = False,
        labels: str | int | list[int] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        self.prune_ratios: list[float] = list(prune_ratio) if isinstance(prune_ratio, Sequence) else [prune_ratio]
        for ratio in self.prune_ratios:
            check_prune_ratio(ratio)
        wanted = len(percentiles) if percentiles is not None else 1
        if len(self.prune_ratios) != wanted:
            raise InputError(
                f"prune_ratio {prune_ratio} must be one number, or as many as there are percentiles ({percentiles})"
            )
        if percentiles is not None and (
            not all(0 < value <= 100 for value in percentiles) or sorted(set(percentiles)) != list(percentiles)
        ):
            raise InputError(f"percentiles must rise and lie in (0, 100] but are {percentiles}")
        if percentiles is not None and per_class:
            raise InputError(f"per_class compares with a class's mean: leave out percentiles {percentiles}")
        if labels is not None and not per_class:
            raise InputError("labels are the classes of per_class: set per_class=True, or leave labels out")
        check_delta(delta)
        if warmup_epochs < 1:
            raise InputError(
                f"warmup_epochs must be at least 1, as the first epoch has no scores, but is {warmup_epochs}"
            )
        check(0 <= score_momentum < 1, "score_momentum", score_momentum, "in [0, 1)")
        self.delta = delta
        self.warmup_epochs = warmup_epochs
        self.score_momentum = score_momentum
        self.percentiles = percentiles
        self.per_class = per_class
        self.label_source = labels
        self.needs_run_length = delta < 1

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """Return empty scores. If labels are needed, look for them now, so that an error comes early."""
        if self.per_class:
            self.labels()
        return super().new_memory(size)

    def labels(self) -> Tensor:
        """Return the classes of the training samples ``(N,)``."""
        return labels_of(self._data.loader.dataset, self.label_source)

    def decide(self, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Choose all samples at the beginning and the end of the run, and prune in between."""
        self.threshold = None
        # True for the epochs t >= floor(delta * T), without rounding errors as in 0.29 * 100.
        if epoch < self.warmup_epochs or self.progress(epoch) > self.delta:
            return torch.arange(len(scores)), None
        valid = _valid(scores)
        values = scores.numpy()
        if not valid.any():
            return torch.arange(len(scores)), None
        bounds: list = [_mean(values, valid)]
        if self.percentiles is not None:
            bounds = list(np.percentile(values[valid], self.percentiles).astype(values.dtype))
        elif self.per_class:
            bounds = [_class_means(values, valid, self.labels().numpy())]
        self.threshold = float(np.mean(bounds[-1]))
        return _thin(
            values, valid, bounds, self.prune_ratios, self.generator(epoch), closed=self.percentiles is not None
        )

    def update(self, memory: dict[str, Tensor], indices: Tensor, losses: Tensor) -> None:
        """Update the scores with an epoch's losses."""
        memory["scores"][indices] = running_mean(memory["scores"][indices], losses, self.score_momentum)


def _thin(
    scores: np.ndarray,
    valid: np.ndarray,
    bounds: list,
    prune_ratios: list[float],
    generator: torch.Generator,
    *,
    closed: bool,
) -> tuple[Tensor, Tensor]:
    """Leave out a share of the samples between neighboring bounds, and give the remaining ones a higher weight.

    With ``closed``, a score equal to a bound counts as below it.
    """
    present, left = np.ones(len(scores), dtype=bool), valid
    thinned = []
    for bound, prune_ratio in zip(bounds, prune_ratios, strict=True):
        below = scores <= bound if closed else scores < bound
        members, left = left & below, left & ~below
        if not (size := int(np.count_nonzero(members))):
            continue
        keep = max(1, round((1 - prune_ratio) * size))
        kept = uniform_subset(len(scores), keep, generator, among=torch.from_numpy(members)).numpy()
        present &= kept | ~members
        thinned.append((members, size / keep))
    indices = np.flatnonzero(present)
    group = np.zeros(len(indices), dtype=np.uint8)
    for number, (members, _) in enumerate(thinned, 1):
        group += members.take(indices) * np.uint8(number)
    # Looking weights up by group is several times faster than assigning them through a mask.
    table = np.array([1, *(weight for _, weight in thinned)], dtype=np.float32)
    return torch.from_numpy(indices), torch.from_numpy(table.take(group))


def _valid(scores: Tensor, seen: Tensor | None = None) -> np.ndarray:
    """Mark the samples with a finite score. Elements are checked only if the sum of all scores is not finite."""
    values = scores.numpy()
    valid = np.ones(len(values), dtype=bool)
    if not np.isfinite(values.sum(dtype=np.float64)):
        valid = np.isfinite(values)
    return valid if seen is None else valid & seen.numpy()


def _mean(scores: np.ndarray, valid: np.ndarray) -> np.generic:
    """Return the mean of the valid scores, summed in double. It is capped at their maximum, against rounding errors."""
    if not valid.all():
        scores = scores[valid]
    if not len(scores):
        return scores.dtype.type("-inf")
    return min(scores.dtype.type(scores.mean(dtype=np.float64)), scores.max())


def _class_means(scores: np.ndarray, valid: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each sample the mean of the valid scores of its class."""
    counts = np.bincount(labels[valid], minlength=labels.max() + 1)
    sums = np.bincount(labels[valid], weights=scores[valid], minlength=labels.max() + 1)
    return (sums / np.maximum(counts, 1)).astype(scores.dtype)[labels]
