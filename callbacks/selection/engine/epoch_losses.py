"""Losses and weights of one epoch on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from ....modules.core.errors import InputError
from ....modules.sample_weighting import SampleWeighting, places_of
from .epoch_plan import EpochPlan
from .sampler import SelectedData


class EpochLosses:
    """Losses and weights of this process's samples of an epoch, in reading order.

    Args:
        plan: Samples of the epoch.
        data: Training data.
        device: Device of the losses and weights.
        batch_idx: Lightning's number of the next batch. It differs from the place in the epoch if the checkpoint was
            written without this callback: Lightning continues to count, and the sampler starts the epoch again.
        restored: Losses of all processes before a checkpoint in this epoch ``(P,)``; None if there are none.
        name: Name of the callback, for messages.

    Attributes:
        first: Lightning's number of the epoch's first batch.
    """

    def __init__(
        self,
        plan: EpochPlan,
        data: SelectedData,
        device: torch.device,
        *,
        batch_idx: int,
        restored: Tensor | None,
        name: str,
    ) -> None:
        share, (epoch, samples) = data.sampler.share, data.sampler.resume
        self._data, self._name = data, name
        self._indices = share(plan.order).to(device)
        self._weights = None if plan.weights is None else share(plan.weights).to(device)
        if restored is None:
            self._losses = torch.full((len(self._indices),), torch.nan, dtype=torch.float32, device=device)
        else:
            self._losses = share(restored).to(device).clone()
        self._foreign = torch.zeros((), dtype=torch.bool, device=device)
        self.first = batch_idx - (samples // data.batch_size if epoch == plan.epoch else 0)

    def describe(self, batch_idx: int, weighting: SampleWeighting, *, weighted: bool) -> None:
        """Give the module the weights and sample indices of a batch, row by row."""
        part, places = self._part(batch_idx), self._places()
        indices = self._indices[part]
        weights = self._weights[part] if weighted and self._weights is not None else None
        if places is not None and len(places) == len(indices):
            indices, weights = indices[places], None if weights is None else weights[places]
        weighting.batch_indices, weighting.sample_weights = indices, weights

    def keep(self, batch_idx: int, values: Tensor, indices: Tensor | None) -> None:
        """Keep the values of a batch.

        Args:
            batch_idx: Lightning's number of the batch.
            values: One value per row ``(N,)``.
            indices: Data set indices of the rows ``(N,)``, if the module sets them.

        Raises:
            InputError: If there is not one value per row.
        """
        part, places = self._part(batch_idx), self._places()
        room, values = self._losses[part], values.detach()
        size = len(room) if indices is None else len(indices)
        if values.shape != (size,):
            raise InputError(
                f"{self._name} needs one loss per sample: the batch has {size} samples but its losses have shape"
                f" {tuple(values.shape)}"
            )
        if indices is not None:
            places, found = places_of(indices, self._indices[part])
            self._foreign |= ~found.all()
            if self._data.order.checking:
                self._refuse_foreign()
        if places is None:
            room.copy_(values)
        else:
            room[places] = values.to(room.device, room.dtype)

    def merged(self) -> Tensor:
        """Return the losses of all processes in the order of the plan; NaN for a sample without a loss."""
        self._refuse_foreign()
        losses = self._losses
        if self._data.sampler.num_replicas > 1:
            losses = torch.atleast_2d(self._data.trainer.strategy.all_gather(losses)).mT
        return losses.flatten().cpu()

    def _part(self, batch_idx: int) -> slice:
        return self._data.part(batch_idx - self.first)

    def _places(self) -> Tensor | None:
        places = self._data.order.places
        return None if places is None else places.to(self._losses.device, non_blocking=True)

    def _refuse_foreign(self) -> None:
        if self._foreign:
            raise InputError(
                f"{self._name} was given indices of samples that are not in the batch: sample_indices must hold each"
                " row's index in the training data set"
            )
