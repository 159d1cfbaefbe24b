"""What the losses on features share: class means of the features of real and synthetic images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..feature_capture import FeatureCapture
from ..losses._logits import full_precision
from ..losses.attention_transfer import attention_maps
from ._base import ClassBatch, Matching, has_batch_statistics
from ._class_means import ClassSums, class_sums


class FeatureMatching(Matching):
    """Base of the losses on class means of features.

    Args:
        chunk_size: Real images that pass the network together. It bounds the memory of the real branch and changes
            nothing else; with batch normalisation, whose statistics are of all images, all pass together.
    """

    def __init__(self, *, chunk_size: int = 64) -> None:
        if chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1 but is {chunk_size}")
        self.chunk_size = chunk_size

    def attach(self, network: nn.Module, *, images_per_class: int) -> None:
        """See `Matching.attach`."""
        if not (hasattr(network, "forward_features") and hasattr(network, "forward_head")):
            raise InputError(
                f"network {type(network).__name__} has no forward_features and forward_head, where"
                f" {type(self).__name__} finds the embedding: choose one with timm's interface"
            )
        network.requires_grad_(False)
        self.mixes_classes = has_batch_statistics(network)

    def class_features(
        self,
        network: nn.Module,
        batch: ClassBatch,
        num_classes: int,
        *,
        capture: FeatureCapture | None = None,
        power: float = 4.0,
    ) -> list[ClassSums]:
        """Class sums of the attention maps of the captured layers, in order, and of the embedding.

        The embedding is what the classifier gets, flattened; the classifier itself is left out.
        """
        if batch.images.requires_grad:
            return self._part(network, batch.images, batch.labels, num_classes, capture, power)
        chunk = len(batch.images) if self.mixes_classes else self.chunk_size
        with torch.no_grad():
            parts = [
                self._part(network, images, labels, num_classes, capture, power)
                for images, labels in zip(batch.images.split(chunk), batch.labels.split(chunk), strict=True)
            ]
        total = parts[0]
        for part in parts[1:]:
            total = [one + other for one, other in zip(total, part, strict=True)]
        return total

    def _part(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        capture: FeatureCapture | None,
        power: float,
    ) -> list[ClassSums]:
        if capture is not None:
            capture.start()
        embedding = network.forward_head(network.forward_features(images), pre_logits=True).flatten(1)  # type: ignore
        features = capture.take() if capture is not None else []
        maps = [self._maps(feature, power) for feature in features]
        if capture is not None:
            capture.start()  # forgets the features
        return [class_sums(values, labels, num_classes) for values in [*maps, *full_precision(embedding)]]

    def _maps(self, features: Tensor, power: float) -> Tensor:
        if features.ndim != 4:
            raise InputError(f"layers must give features (N, C, H, W) but one gives {tuple(features.shape)}")
        if features.requires_grad:
            return attention_maps(features, power=power)
        # Powers are as large as the features: a few images at a time.
        return torch.cat([attention_maps(part, power=power) for part in features.split(_AT_ONCE)])


_AT_ONCE = 16


def middle_layers(network: nn.Module) -> Sequence[str]:
    """Names of all ReLUs but the last, or of all ``blocks`` but the last where ReLUs are no modules.

    Raises:
        InputError: If there are neither.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, nn.ReLU)][:-1]
    blocks = getattr(network, "blocks", None)
    if not names and isinstance(blocks, nn.Sequential):
        names = [f"blocks.{name}" for name, _ in blocks.named_children()][:-1]
    if not names:
        raise InputError(
            f"layers: {type(network).__name__} has neither two nn.ReLU nor two blocks for DataDAM to compare by"
            " default: name layers that give features (N, C, H, W), or deepen the network"
        )
    return names
