"""Distribution matching: real and synthetic images of a class have the same mean embedding."""

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
    """Squared distance between the class means of real and synthetic embeddings (https://arxiv.org/abs/2110.04181).

    It is the maximum mean discrepancy with a linear kernel, summed over classes.

    Args:
        real_embeddings: Shape ``(N, D)``.
        synthetic_embeddings: Shape ``(M, D)``.
        real_labels: Class indices, shape ``(N,)``.
        synthetic_labels: Class indices, shape ``(M,)``.
        num_classes: Number of classes. One that real or synthetic images lack counts 0.

    Returns:
        A scalar.
    """
    real, synthetic = full_precision(real_embeddings, synthetic_embeddings)
    return mean_distance(
        class_sums(real, real_labels, num_classes), class_sums(synthetic, synthetic_labels, num_classes)
    )


class DistributionMatching(FeatureMatching):
    """DM (https://arxiv.org/abs/2110.04181): class means of the embedding in fresh random networks.

    Args:
        scale: Factor of the loss (1, as published); the image optimizer's rate refers to it.
        chunk_size: Images that pass the network together; of the synthetic ones, whole classes. None is 2^14 pixels on
            a CPU, 16 images of 32x32, where it is fastest as features stay in the cache, and 2^20 elsewhere. It changes
            only time and memory; with batch norm, all images pass together.

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
