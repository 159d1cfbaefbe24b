"""The contract between a recipe, which has one loss per sample, and a callback that weights samples."""

from __future__ import annotations

from torch import Tensor

from .mixing import mirror_blend


class SampleWeighting:
    """Mixed into every recipe: turns per-sample losses into the scalar to minimise.

    A recipe never averages by hand; it calls :meth:`reduce`. A callback that selects or weights samples sets
    ``sample_weights`` before the step and reads ``sample_losses`` after it.
    """

    sample_weights: Tensor | None = None
    """Weights ``(N,)`` of the current batch, set by a callback; None means 1 for every sample."""

    sample_losses: Tensor | None = None
    """Detached, unweighted losses ``(N,)`` of the last batch."""

    rehearsing: bool = False
    """True while a callback computes a step that does not count, as `AWP` does: a recipe then logs nothing of it."""

    def reduce(self, losses: Tensor, *, mixing_ratio: float = 1.0) -> Tensor:
        """Weighted mean of per-sample losses, divided by N and not by the sum of the weights.

        A callback reads the losses of a step's last call, which must be those of the classifier that is kept.

        Args:
            losses: One loss per image, shape ``(N,)``.
            mixing_ratio: Share of sample i in image i where images were mixed with those of the mirrored places
                (`modules.mixing.Mixing`). An image then weighs what its two samples do, each by its share, and the
                loss of a sample is that of its two images, each by its share.

        Returns:
            A scalar.

        Raises:
            ValueError: If ``losses`` is not of shape ``(N,)`` or the weights set for this batch differ in length.
        """
        if losses.ndim != 1:
            raise ValueError(f"losses must have shape (N,), one per sample, but got {tuple(losses.shape)}")
        self.sample_losses = mirror_blend(losses.detach(), mixing_ratio)
        if self.sample_weights is not None:
            if self.sample_weights.shape != losses.shape:
                raise ValueError(
                    f"sample_weights has shape {tuple(self.sample_weights.shape)}"
                    f" but the batch has {len(losses)} losses"
                )
            losses = losses * mirror_blend(self.sample_weights, mixing_ratio)
        return losses.mean()
