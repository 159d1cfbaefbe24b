"""Training on the samples that an earlier run found hardest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors import safe_open
from torch import Tensor

from ...modules.artifacts.score_file import load_scores
from ...modules.core.errors import InputError
from .engine.checks import check_prune_ratio
from .engine.data_selection import DataSelection
from .engine.running_losses import highest


class KeepHardest(DataSelection):
    """Static data pruning: trains on the samples with the highest scores of an earlier run, by `EL2N` or `Forgetting`.

    Every epoch uses the same ``round((1 - prune_ratio) N)`` samples. Ties are broken at random. Samples without a score
    count as the highest. The rule needs no per-sample losses and works with any module.

    An earlier run costs as much as training on all samples, so the method saves time only if its scores serve many
    runs. Compare with `RandomSubset`.

    Args:
        scores: File of scores, or several of one kind, which are averaged; the EL2N paper averages about 10. If a file
            has no score for a sample, the mean of the other files is used. If a score is infinite in one file, the mean
            is infinite.
        prune_ratio: Share of all samples left out, in [0, 1). At least one sample stays.
        seed: Seed of the choice between equal scores and of the order. None takes the seed given to
            ``seed_everything``, or 0.

    Raises:
        InputError: If ``prune_ratio`` is outside [0, 1), or `DataSelection` does not support the run. Also if a file
            cannot be read, has no scores or belongs to another training set, or the files are of different kinds.
    """

    needs_losses = False

    def __init__(self, scores: str | list[str], prune_ratio: float = 0.3, *, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        check_prune_ratio(prune_ratio)
        if not scores:
            raise InputError(f"scores must name a file or several but is {scores!r}")
        self.files = list(scores) if isinstance(scores, Sequence) and not isinstance(scores, str) else [scores]
        self.prune_ratio = prune_ratio

    def decide(self, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Choose the same samples for every epoch."""
        keep = max(1, round((1 - self.prune_ratio) * len(scores)))
        return highest(scores, keep, self.generator(0)).nonzero().flatten(), None

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """Return the mean of the files' scores."""
        try:
            labels = self.labels()
        except (InputError, RuntimeError, TypeError, ValueError):  # no labels, or labels that are not class indices
            labels = None
        found, kinds = [], {}
        for path in self.files:
            scores = load_scores(path, size=size, labels=labels)
            if scores.ndim != 1 or not scores.is_floating_point() or scores.isnan().all():
                raise InputError(
                    f"{path} does not hold a score of each sample: make it by a run with the callback EL2N or"
                    " Forgetting"
                )
            found.append(scores)
            with safe_open(path, framework="pt") as file:
                kinds[(file.metadata() or {}).get("kind", "")] = path
        if len(kinds) > 1:
            described = ", ".join(f"{path} by {kind or 'an unknown rule'}" for kind, path in kinds.items())
            raise InputError(f"scores of different kinds cannot be averaged ({described}): give files of one")
        return {"scores": torch.stack(found).nanmean(0)}
