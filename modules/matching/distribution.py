"""Distribution matching: match the mean embeddings of real and synthetic images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..core.checks import positive
from ..losses._logits import full_precision
from ._class_means import ClassSums, class_sums, mean_distance
from ._features import FeatureMatching


def distribution_matching_loss(
    real_embeddings: Tensor,
    synthetic_embeddings: Tensor,
    real_labels: Tensor,
    synthetic_labels: Tensor,
    *,
    num_classes: int,
) -> Tensor:
    """Compute ``Σ_c ||mean e(real_c) - mean e(syn_c)||²`` of embeddings e (https://arxiv.org/abs/2110.04181).

    The means are over the images of class c. This is the maximum mean discrepancy with a linear kernel.

    Args:
        real_embeddings: Shape ``(N, D)``.
        synthetic_embeddings: Shape ``(M, D)``.
        real_labels: Class indices, shape ``(N,)``.
        synthetic_labels: Class indices, shape ``(M,)``.
        num_classes: Number of classes. A class without real or without synthetic images adds 0.

    Returns:
        A scalar.
    """
    real, synthetic = full_precision(real_embeddings, synthetic_embeddings)
    return mean_distance(
        class_sums(real, real_labels, num_classes), class_sums(synthetic, synthetic_labels, num_classes)
    )


class DistributionMatching(FeatureMatching):
    """DM (https://arxiv.org/abs/2110.04181): class means of embeddings in random networks, a new one in each step.

    Args:
        scale: Factor of the loss (1, as published); the learning rate of the images depends on it.
        chunk_size: Number of images per forward pass; synthetic images are split between classes only. None is 2^14
            pixels (16 images of 32x32) on a CPU, where features then stay in the cache, and 2^20 pixels elsewhere. It
            changes only time and memory. With batch norm all images pass together, because its statistics depend on all
            of them.

    Raises:
        InputError: If an argument is not positive.
    """

    def __init__(self, scale: float = 1.0, *, chunk_size: int | None = None) -> None:
        super().__init__(chunk_size=chunk_size)
        positive(scale=scale)
        self.scale = scale

    def distances(self, real: Sequence[ClassSums], synthetic: Sequence[ClassSums]) -> dict[str, Tensor]:
        """See `FeatureMatching.distances`."""
        return {"mmd": self.scale * mean_distance(real[0], synthetic[0])}
