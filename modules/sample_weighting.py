"""The contract between a recipe, which has one loss per sample, and a callback that weights samples."""

from __future__ import annotations

from torch import Tensor


class SampleWeighting:
    """Mixed into every recipe: turns per-sample losses into the scalar to minimise.

    A recipe never averages by hand; it calls :meth:`reduce`. A callback that selects or weights samples sets
    ``sample_weights`` before the step and reads ``sample_losses`` after it.
    """

    sample_weights: Tensor | None = None
    """Weights ``(N,)`` of the current batch, set by a callback; None means 1 for every sample."""

    sample_losses: Tensor | None = None
    """Detached, unweighted losses ``(N,)`` of the last batch."""

    def reduce(self, losses: Tensor) -> Tensor:
        """Weighted mean of per-sample losses, divided by N and not by the sum of the weights.

        Args:
            losses: One loss per sample, shape ``(N,)``.

        Returns:
            A scalar.

        Raises:
            ValueError: If ``losses`` is not of shape ``(N,)`` or the weights set for this batch differ in length.
        """
        if losses.ndim != 1:
            raise ValueError(f"losses must have shape (N,), one per sample, but got {tuple(losses.shape)}")
        self.sample_losses = losses.detach()
        if self.sample_weights is not None:
            if self.sample_weights.shape != losses.shape:
                raise ValueError(
                    f"sample_weights has shape {tuple(self.sample_weights.shape)}"
                    f" but the batch has {len(losses)} losses"
                )
            losses = losses * self.sample_weights
        return losses.mean()
