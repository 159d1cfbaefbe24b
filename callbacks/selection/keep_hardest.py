"""A second run on the samples that a first one found hardest."""

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
    """Trains on the samples with the highest scores of an earlier run, by `EL2N` or `Forgetting`; static data pruning.

    The same samples in every epoch, exactly ``round((1 - prune_ratio) N)``; which of equal scores is left to chance.
    Samples without a score count as the highest. Needs no per-sample losses and works with any module. The earlier runs
    cost what training on all samples costs: it pays where their scores serve many runs. Compare with `RandomSubset`.

    Args:
        scores: File of scores, or several of one kind, which are averaged; the paper of EL2N averages about 10. A
            sample without a score in one file goes by the others; infinite in one is infinite.
        prune_ratio: Share of all samples left out, in [0, 1). At least one stays.
        seed: Seed of the choice between equal scores and of the order; None takes the one given to
            ``seed_everything``, or 0.

    Raises:
        InputError: If ``prune_ratio`` is outside [0, 1), a file cannot be read, holds no scores or is of another
            training set, files are of different kinds, or the run is one that `DataSelection` cannot serve.
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
        """The same samples for every epoch."""
        keep = max(1, round((1 - self.prune_ratio) * len(scores)))
        return highest(scores, keep, self.generator(0)).nonzero().flatten(), None

    def new_memory(self, size: int) -> dict[str, Tensor]:
        """The mean of the files."""
        try:
            labels = self.labels()
        except (InputError, RuntimeError, TypeError, ValueError):  # none, or such as are no classes
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
