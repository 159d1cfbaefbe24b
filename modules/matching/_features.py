"""Base class of the matching losses on class means of features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..core.checks import at_least
from ..core.errors import InputError
from ..core.feature_capture import FeatureCapture
from ..losses._logits import full_precision
from ..losses.attention_transfer import attention_maps
from ._base import ClassBatch, Matching, has_batch_statistics, with_gradients
from ._class_means import ClassSums, class_sums


class FeatureMatching(Matching):
    """Base class of losses on class means of features.

    Images pass through the network in chunks. The gradient of a chunk is computed before the next chunk, so memory does
    not grow with the number of images. The loss is a sum over classes, each with separate means, so chunks of whole
    classes do not change it. With batch norm they would, so all images pass together.

    Args:
        chunk_size: Number of images per forward pass; synthetic images are split between classes only. None is 2^14
            pixels (16 images of 32x32) on a CPU, where features then stay in the cache, and 2^20 pixels elsewhere.
    """

    def __init__(self, *, chunk_size: int | None = None) -> None:
        at_least(1, chunk_size=chunk_size)
        self.chunk_size = chunk_size
        self.power = 4.0
        self._capture: FeatureCapture | None = None

    def attach(self, network: nn.Module, *, images_per_class: int) -> None:
        """See `Matching.attach`."""
        if not (hasattr(network, "forward_features") and hasattr(network, "forward_head")):
            raise InputError(
                f"network {type(network).__name__} has no forward_features and forward_head, where"
                f" {type(self).__name__} finds the embedding: choose one with timm's interface"
            )
        network.requires_grad_(False)
        self.mixes_classes = has_batch_statistics(network)

    @abstractmethod
    def distances(self, real: Sequence[ClassSums], synthetic: Sequence[ClassSums]) -> dict[str, Tensor]:
        """Return the terms of the loss from the class sums of real and synthetic images, see `_features`."""

    def terms(self, network: nn.Module, real: ClassBatch, synthetic: ClassBatch, num_classes: int) -> dict[str, Tensor]:
        """See `Matching.terms`."""
        of_real = self._class_sums(network, real, num_classes)
        images = synthetic.images
        if self.mixes_classes or not images.requires_grad:
            return self.distances(of_real, self._features(network, images, synthetic.labels, num_classes))
        gradients, values = [], []
        for part, labels in self._groups(synthetic):
            part = part.detach().requires_grad_()
            terms = self.distances(of_real, self._features(network, part, labels, num_classes))
            gradients += torch.autograd.grad(torch.stack(list(terms.values())).sum(), part)
            values.append({name: term.detach() for name, term in terms.items()})
        total = {name: torch.stack([terms[name] for terms in values]).sum() for name in values[0]}
        return with_gradients(total, images, gradients)

    def _class_sums(self, network: nn.Module, batch: ClassBatch, num_classes: int) -> list[ClassSums]:
        """Return class sums of real images, in chunks and without gradients."""
        chunk = len(batch.images) if self.mixes_classes else self._chunk(batch.images)
        with torch.no_grad():
            parts = [
                self._features(network, images, labels, num_classes)
                for images, labels in zip(batch.images.split(chunk), batch.labels.split(chunk), strict=True)
            ]
        total = parts[0]
        for part in parts[1:]:
            total = [one + other for one, other in zip(total, part, strict=True)]
        return total

    def _features(self, network: nn.Module, images: Tensor, labels: Tensor, num_classes: int) -> list[ClassSums]:
        """Return class sums of the attention maps of the captured layers, in order, and of the embedding.

        The embedding is the flattened input of the classifier.
        """
        if self._capture is not None:
            self._capture.start()
        embedding = network.forward_head(network.forward_features(images), pre_logits=True).flatten(1)  # type: ignore
        maps = []
        if self._capture is not None:
            maps = [self._maps(features) for features in self._capture.take()]
            self._capture.forget()
        return [class_sums(values, labels, num_classes) for values in [*maps, *full_precision(embedding)]]

    def _maps(self, features: Tensor) -> Tensor:
        if features.ndim != 4:
            raise InputError(f"layers must give features (N, C, H, W) but one gives {tuple(features.shape)}")
        if features.requires_grad:
            return attention_maps(features, power=self.power)
        # Powers take as much memory as the features, so process a few images at a time.
        parts = features.split(self._chunk(features))
        return torch.cat([attention_maps(part, power=self.power) for part in parts])

    def _groups(self, batch: ClassBatch) -> Iterator[tuple[Tensor, Tensor]]:
        """Split the batch into groups of whole classes, each at most a chunk or one class."""
        sizes: list[int] = []
        for count in batch.counts:
            if sizes and sizes[-1] + count <= self._chunk(batch.images):
                sizes[-1] += count
            else:
                sizes.append(count)
        return zip(batch.images.split(sizes), batch.labels.split(sizes), strict=True)

    def _chunk(self, images: Tensor) -> int:
        pixels = 2**14 if images.device.type == "cpu" else 2**20
        return self.chunk_size or max(1, pixels // (images.shape[2] * images.shape[3]))


def middle_layers(network: nn.Module) -> Sequence[str]:
    """Return the names of all ReLUs except the last, or of all ``blocks`` except the last if there are no ReLU modules.

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
