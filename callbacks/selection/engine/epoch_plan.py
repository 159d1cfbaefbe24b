"""The plan of an epoch: its samples, their weights and the share of each process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ....modules.core.sampling import epoch_generator
from .sampler import SelectionSampler


@dataclass(frozen=True)
class EpochPlan:
    """The selected samples of an epoch.

    Attributes:
        epoch: The epoch.
        first_step: Optimizer steps done before it.
        kept: Number of samples selected, for all processes together.
        order: Their indices in the order they are read, shape ``(P,)``: each process reads every W-th. Some are
            repeated at the end where the number of processes, or a batch, has to be filled.
        weights: Their weights ``(P,)``, 0 for repeats; None if all are 1.
    """

    epoch: int
    first_step: int
    kept: int
    order: Tensor
    weights: Tensor | None


def epoch_plan(
    indices: Tensor,
    weights: Tensor | None,
    sampler: SelectionSampler,
    *,
    epoch: int,
    first_step: int,
    weighted: bool,
) -> EpochPlan:
    """Put selected samples into the order in which they are read.

    Args:
        indices: Selected samples ``(K,)``.
        weights: Their weights ``(K,)``; None if all are 1.
        sampler: Of the epoch.
        epoch: The epoch.
        first_step: Optimizer steps done before it.
        weighted: Whether repeats can be given the weight 0.
    """
    kept = len(indices)
    if sampler.shuffle:
        # What an `EpochSampler` reads if all are selected.
        order = torch.randperm(kept, generator=epoch_generator(sampler.seed, epoch))
        indices, weights = _take(indices, order), None if weights is None else _take(weights, order)
    total = sampler.share_size(kept) * sampler.num_replicas
    if total > kept:
        indices = indices.repeat(-(-total // kept))
        if weighted:
            weights = torch.ones(kept, dtype=torch.float32) if weights is None else weights
            weights = torch.cat([weights, weights.new_zeros(total - kept)])
    return EpochPlan(epoch, first_step, kept, indices[:total], None if weights is None else weights[:total])


def _take(values: Tensor, order: Tensor) -> Tensor:
    """``values[order]``, which numpy does several times faster."""
    return torch.from_numpy(values.numpy().take(order.numpy()))
