"""The contract between a recipe, which has one loss per sample, and a callback that weights samples."""

from __future__ import annotations

from torch import Tensor

from .augmentation.mixing import mirror_blend
from .core.errors import InputError


class SampleWeighting:
    """Mixed into every recipe: turns per-sample losses into the scalar to minimise.

    A recipe never averages by hand; it calls :meth:`reduce`. A callback that selects or weights samples sets
    ``sample_weights`` before the step and reads ``sample_losses`` after it.
    """

    sample_weights: Tensor | None = None
    """Weights ``(N,)`` of the current batch, set by a callback; None means 1 for every sample."""

    sample_losses: Tensor | None = None
    """Detached, unweighted losses ``(N,)`` of the last batch."""

    sample_indices: Tensor | None = None
    """Data set index per row of the batch ``(N,)``. A module whose batches are not in the order of the sampler sets
    it before it calls :meth:`reduce`; the callback clears it after the step."""

    batch_indices: Tensor | None = None
    """Data set index per sample of the batch in the order of the sampler ``(N,)``, set by a callback."""

    weighted_by: str | None = None
    """Name of the callback that may weight this batch, set by it: then each sample must have one loss."""

    is_dry_run: bool = False
    """True while a callback computes a step that does not count, as `AWP` does: a recipe then logs nothing of it."""

    def release(self) -> None:
        """Forget everything a callback has set for a batch."""
        self.sample_weights = self.sample_indices = self.batch_indices = self.weighted_by = None

    def reduce(self, losses: Tensor, *, mixing_ratio: float = 1.0) -> Tensor:
        """Weighted mean of per-sample losses, divided by N and not by the sum of the weights.

        A callback reads the losses of a step's last call; they must come from the final classifier.

        Args:
            losses: One loss per image, shape ``(N,)``.
            mixing_ratio: Share of sample i in image i if images were mixed with the mirrored batch
                (`modules.augmentation.mixing.Mixing`). The weight of a mixed image is the mix of its two samples'
                weights. The loss of a sample is the same mix of the losses of the two images that contain it.

        Returns:
            A scalar.

        Raises:
            InputError: If a callback may weight the batch and there is not one loss per sample.
            ValueError: If ``losses`` is not of shape ``(N,)`` or the weights set for this batch differ in length.
        """
        if losses.ndim != 1:
            raise ValueError(f"losses must have shape (N,), one per sample, but got {tuple(losses.shape)}")
        rows = self.sample_indices if self.sample_indices is not None else self.batch_indices
        if self.weighted_by is not None and rows is not None and len(rows) != len(losses):
            raise InputError(
                f"{self.weighted_by} needs one loss per sample: the batch has {len(rows)} samples but its losses have"
                f" shape {tuple(losses.shape)}"
            )
        self.sample_losses = mirror_blend(losses.detach(), mixing_ratio)
        weights = self.sample_weights
        if weights is not None:
            if self.sample_indices is not None and self.batch_indices is not None:
                weights = weights[places_of(self.sample_indices, self.batch_indices)[0]]
            if weights.shape != losses.shape:
                raise ValueError(
                    f"sample_weights has shape {tuple(weights.shape)} but the batch has {len(losses)} losses"
                )
            losses = losses * mirror_blend(weights, mixing_ratio)
        return losses.mean()


def places_of(indices: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Find indices in a batch without waiting for the device.

    Args:
        indices: Indices to find ``(N,)``.
        among: Indices of the batch ``(M,)``.

    Returns:
        Place of each index ``(N,)``, and whether it was found, bool ``(N,)``.
    """
    match = indices.to(among.device)[:, None] == among
    return match.int().argmax(1), match.any(1)
