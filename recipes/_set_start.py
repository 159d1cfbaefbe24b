"""The part of `DatasetDistillation` that reads the real images and chooses the initial images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..modules.artifacts.synthetic_set import k_center, load_set
from ..modules.augmentation.batches import normalize
from ..modules.core.errors import InputError
from ..modules.core.sampling import Stream, derived_seed, isolated_rng, run_seed
from ..modules.lightning_private import training_data_source
from ._class_batches import ClassBatches, RealImages

STARTS = ("real", "noise", "kcenter")
"""Values of ``init`` other than a file."""


class SetStart:
    """Real images of a run, the baselines "random" and "kcenter", and the initial synthetic images."""

    def _real_batches(self: Any) -> Any:
        """Return batches of the training images, without augmentation if the datamodule supports that."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None and hasattr(datamodule, "plain_train_dataloader"):
            return datamodule.plain_train_dataloader()
        source = training_data_source(self.trainer)
        if source.instance is self:
            raise InputError("DatasetDistillation makes its images from real ones: give it a datamodule or a loader")
        # A shuffling loader may draw from the global generators.
        with isolated_rng(derived_seed(Stream.REAL_ORDER, run_seed())):
            return list(source.dataloader())  # type: ignore[arg-type]

    def _start_from(self: Any, real: RealImages) -> None:
        """Check the real images, and set the synthetic images and the two baselines unless this is done.

        Raises:
            InputError: If a class has too few images, or shapes do not fit.
        """
        least = min(range(self.num_classes), key=lambda label: len(real.by_class[label]))
        if len(real.by_class[least]) < self.images_per_class:
            raise InputError(
                f"images_per_class is {self.images_per_class} but class {least} has only"
                f" {len(real.by_class[least])} training images: choose a smaller value or add images"
            )
        shape = self.num_classes, self.images_per_class, self.in_chans, self.image_size, self.image_size
        if real.images.shape[1:] != shape[2:]:
            raise InputError(
                f"training images must have shape {shape[2:]} (in_chans, image_size, image_size) but have"
                f" {tuple(real.images.shape[1:])}: set in_chans and image_size to the data's"
            )
        if self.images.shape != shape:
            raise InputError(f"images must keep the shape {shape} but were set to {tuple(self.images.shape)}")
        mine = range(self.rank, self.num_classes, self.world)
        self._batches = ClassBatches(real, mine, per_class=self.batch_real, steps=self.steps_per_epoch)
        if self.ready and self.random_images.any():
            return

        def drawn(stream: Stream) -> Tensor:
            chosen = [real.draw(label, self.images_per_class, stream, run_seed()) for label in range(self.num_classes)]
            return torch.stack([self._served(real.images[part], real.labels[part]) for part in chosen])

        with torch.no_grad():
            for label, members in enumerate(real.by_class):
                of_class = self._served(real.images[members], real.labels[members])
                self.kcenter_images[label] = of_class[k_center(of_class, self.images_per_class)]
            self.random_images.copy_(drawn(Stream.RANDOM_SET))
            # Keep images that were set before.
            if not self.ready and not self.images.any():
                self.images.copy_(self._first_images(lambda: drawn(Stream.SYNTHETIC_START)))
            self.ready.fill_(True)

    def _first_images(self: Any, drawn: Callable[[], Tensor]) -> Tensor:
        """Return the images that ``init`` asks for; ``drawn`` returns random real images."""
        if self.init == "kcenter":
            return self.kcenter_images
        if self.init == "noise":
            generator = torch.Generator().manual_seed(derived_seed(Stream.SYNTHETIC_START, run_seed()))
            return torch.randn(self.images.shape, generator=generator)
        first = drawn()
        if self.init != "real":
            given, labels, facts = load_set(self.init)
            if len(facts["class_names"]) != self.num_classes or given.shape[1:] != first.shape[2:]:
                raise InputError(
                    f"init {self.init} has {len(facts['class_names'])} classes of images {tuple(given.shape[1:])}, but"
                    f" the data has {self.num_classes} of {tuple(first.shape[2:])}: give a set of the same data"
                )
            data = self._facts()
            names = [str(name) for name in facts["class_names"]]
            known = [str(name) for name in getattr(data, "class_names", None) or names]
            # Data without class names has numbers in its file.
            if names not in (known, [str(label) for label in range(self.num_classes)]):
                file, other = next(pair for pair in zip(names, known, strict=True) if pair[0] != pair[1])
                raise InputError(
                    f"init {self.init} has class {file!r} where the data has {other!r}: give a set of the same data"
                )
            # With equal statistics the images stay as they are, bit for bit.
            if data is not None and (facts["mean"], facts["std"]) != (list(data.mean), list(data.std)):
                scale, offset = (torch.tensor(facts[name]).view(-1, 1, 1) for name in ("std", "mean"))
                given = normalize(given * scale + offset, data.mean, data.std)
            for label in range(self.num_classes):
                of_class = given[labels == label][: self.images_per_class]
                first[label, : len(of_class)] = of_class
        return first

    def _served(self: Any, images: Tensor, labels: Tensor) -> Tensor:
        """Return images as a training step gets them, after the datamodule's transforms on the device."""
        batch: Any = images, labels
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None:
            batch = datamodule.on_before_batch_transfer(batch, 0)
            batch = datamodule.on_after_batch_transfer(batch, 0)
        if not batch[0].is_floating_point():
            raise InputError(
                f"training images are {batch[0].dtype} and no datamodule makes them floating: normalise them in the"
                " data set, or in on_after_batch_transfer of a datamodule"
            )
        return batch[0].float()
