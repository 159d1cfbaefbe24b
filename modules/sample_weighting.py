"""Interface between recipes, which compute one loss per sample, and callbacks that weight samples."""

from __future__ import annotations

from torch import Tensor

from .augmentation.mixing import mirror_blend
from .core.errors import InputError


class SampleWeighting:
    """Mixin of every recipe that reduces per-sample losses to the scalar to minimize.

    A recipe calls :meth:`reduce` instead of averaging. A callback that selects or weights samples sets
    ``sample_weights`` before the step and reads ``sample_losses`` after it.
    """

    sample_weights: Tensor | None = None
    """Weights ``(N,)`` of the current batch, set by a callback; None is 1 for every sample."""

    sample_losses: Tensor | None = None
    """Detached, unweighted losses ``(N,)`` of the last batch."""

    sample_indices: Tensor | None = None
    """Data set index per row of the batch ``(N,)``. If batches are not in the sampler's order, the module sets it
    before it calls :meth:`reduce`. The callback clears it after the step."""

    batch_indices: Tensor | None = None
    """Data set index per sample of the batch ``(N,)``, in the sampler's order, set by a callback."""

    weighted_by: str | None = None
    """Name of the callback that may weight this batch, set by the callback; each sample must then have one loss."""

    is_dry_run: bool = False
    """True while a callback computes an extra step, as `AWP` does; the recipe then does not log."""

    def release(self) -> None:
        """Reset all values that a callback has set for a batch."""
        self.sample_weights = self.sample_indices = self.batch_indices = self.weighted_by = None

    def reduce(self, losses: Tensor, *, mixing_ratio: float = 1.0) -> Tensor:
        """Return the weighted mean of per-sample losses, ``Σ_i w_i l_i / N``.

        The divisor is N, not the sum of the weights.

        A callback reads the losses of a step's last call, which must be for the final classifier.

        Args:
            losses: Losses l, one per image, shape ``(N,)``.
            mixing_ratio: Share of sample i in image i if image i was mixed with image N-1-i
                (`modules.augmentation.mixing.Mixing`). The weight of a mixed image is the mix of its two samples'
                weights. The loss of a sample is the same mix of the losses of the two images that contain it.

        Returns:
            A scalar.

        Raises:
            InputError: If a callback may weight the batch and the number of losses differs from the number of samples.
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
        Position of each index ``(N,)``, and whether it was found, bool ``(N,)``.
    """
    match = indices.to(among.device)[:, None] == among
    return match.int().argmax(1), match.any(1)
