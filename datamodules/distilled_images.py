"""A distilled set for training, with the original real images for validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..modules.artifacts.synthetic_set import load_set, load_soft_labels, read_facts
from ..modules.augmentation.siamese import SiameseAugmentation
from ..modules.core.errors import InputError
from ..modules.synthetic.joining import choose_classes, class_indices, join_sets
from ._base import ImageDataModule
from ._datasets import RANDOM_LIMIT, MemoryImages


class DistilledImages(ImageDataModule):
    """Trains on a synthetic set; validates and tests on real images with the same normalization.

    The set is a file of ``recipes export``. Its values may be outside [0, 1], unlike those in a PNG file. The folder of
    PNG files next to it can be read by `ImageFolder`. Crop, flip, cutout and ``transform`` augment as for other images.
    Class names, channels, size, mean and std come from the file. An epoch reads all images, so the last batch may be
    smaller.

    Args:
        path: The file, ``distilled.safetensors``. Several files are joined by the names of their classes.
        real: Datamodule of the real images that the set was made from. Give it the arguments of that run, so that the
            validation images were not used to make the set.
        classes: Train and evaluate only on these classes, by name or index, as in continual learning. They get the
            labels 0, 1, … in this order. None is all classes.
        batch_size: Training images per step in each process.
        clip: Clip pixels to [0, 1], as in a PNG file. Adversarial recipes, and heads that reconstruct pixels, need
            this. It costs accuracy; ``test/accuracy_png`` of the distillation shows how much.
        augmentation: Siamese augmentation of the training images, with one operation per image (the evaluation of a set
            uses one operation per batch). "measured" is the augmentation of that evaluation. It replaces
            ``crop_padding``, ``flip`` and ``cutout``.
        soft_labels: Train with the class probabilities in the file, if there are any, instead of its classes. The
            objective must accept soft labels.
        **kwargs: The arguments of all image datamodules. ``val_fraction`` has no effect here, as ``real`` has its own.
            ``subset``, ``imbalance_ratio`` and ``label_noise`` change the synthetic set.

    Attributes:
        facts: Facts in the file about its making: method, settings, seed, …

    Raises:
        InputError: If the file is missing or of another kind, or ``real`` has other classes, channels or size. At
            ``setup``: if the parts of the file do not fit together.
    """

    _own_val = True
    _keeps_all = True

    def __init__(
        self,
        path: str | list[str],
        real: ImageDataModule,
        *,
        classes: list[int | str] | None = None,
        batch_size: int = 256,
        clip: bool = False,
        augmentation: SiameseAugmentation | Literal["measured"] | None = None,
        soft_labels: bool = True,
        **kwargs: Any,
    ) -> None:
        self.paths = [path] if isinstance(path, str) else list(path)
        if not self.paths:
            raise InputError("path must name at least one file of recipes export")
        all_facts = [read_facts(file) for file in self.paths]
        self.facts: Mapping[str, Any] = all_facts[0]
        self.real = real
        self.clip = clip
        self.soft_labels = soft_labels
        names = list(dict.fromkeys(name for facts in all_facts for name in facts["class_names"]))
        self._chosen = None if classes is None else class_indices(classes, names)
        self.class_names = tuple(names if self._chosen is None else [names[label] for label in self._chosen])
        self.num_classes = len(self.class_names)
        self.in_chans, self.image_size = self.facts["in_chans"], self.facts["image_size"]
        for file, facts in zip(self.paths, all_facts, strict=True):
            for name in ("in_chans", "image_size"):
                if facts[name] != getattr(real, name):
                    raise InputError(
                        f"real has {name} {getattr(real, name)} but {file} has {facts[name]}: give the datamodule that"
                        " the set was made of"
                    )
        self._real_classes = self._classes_of(real)
        self.mean, self.std = tuple(self.facts["mean"]), tuple(self.facts["std"])
        super().__init__(batch_size=batch_size, **kwargs)
        if augmentation is not None and (self.crop_padding or self.flip or self.cutout):
            raise InputError("augmentation takes the place of crop_padding, flip and cutout: give one or the others")
        if augmentation == "measured":
            measured = self.facts.get("augmentation")
            augmentation = None if measured is None else SiameseAugmentation(**measured)
        self.augmentation = augmentation

    def _classes_of(self, real: ImageDataModule) -> list[int] | None:
        """Return the indices of the classes in the real images; None if they are the same."""
        source = " and ".join(self.paths)
        # Data without class names has numbers in its file.
        numbered = all(name.isdecimal() and int(name) < real.num_classes for name in self.class_names)
        if self._chosen is not None:
            known = [str(label) for label in range(real.num_classes)] if numbered else list(real.class_names)
            missing = [name for name in self.class_names if name not in known]
            if missing:
                raise InputError(f"real has no class {missing[0]!r}: give the datamodule that {source} was made of")
            return [known.index(name) for name in self.class_names]
        if self.num_classes != real.num_classes:
            raise InputError(
                f"real has num_classes {real.num_classes} but {source} has {self.num_classes}: give the datamodule that"
                " the set was made of, or name all its classes in classes to evaluate on these alone"
            )
        if not (numbered and self.class_names == tuple(map(str, range(self.num_classes)))) and (
            self.class_names != tuple(real.class_names)
        ):
            own = next(pair for pair in zip(real.class_names, self.class_names, strict=True) if pair[0] != pair[1])
            raise InputError(
                f"real has class {own[0]!r} where {source} has {own[1]!r}: give the datamodule that the set was made of"
            )
        return None

    def setup(self, stage: str) -> None:
        """Read the set, and the real images of the stage."""
        # Evaluation uses the real images only.
        self.real.setup("validate" if stage == "fit" else stage)
        super().setup(stage)
        if self._real_classes is None:
            self.predict_names = self.real.predict_names
            self.predict_set = self.real.predict_set  # type: ignore[assignment]

    def _setup_train(self) -> None:
        super()._setup_train()
        if self._real_classes is None:
            self.val_set = self.real.val_set

    def _read(self, part: str) -> tuple[Any, Tensor]:
        if part != "train":
            held = self.real.val_set if part == "val" else self.real.test_set
            assert held is not None
            images, labels = held.content()
            if self._real_classes is None:
                return images, labels
            place = torch.full((self.real.num_classes,), -1)
            place[self._real_classes] = torch.arange(self.num_classes)
            kept = place[labels] >= 0
            return images[kept if isinstance(images, Tensor) else kept.numpy()], place[labels[kept]]
        soft_labels = load_soft_labels(self.paths[0]) if self.soft_labels and len(self.paths) == 1 else None
        if soft_labels is not None and (self.label_noise or self._chosen is not None):
            raise InputError("label_noise and classes need the classes of the file as labels: set soft_labels to false")
        whole = join_sets([load_set(file) for file in self.paths])
        images, labels, _ = whole if self._chosen is None else choose_classes(whole, self._chosen)
        # Augmentation expects images in [0, 1]; the batch is normalized on the device.
        scale, offset = (torch.tensor(values).view(-1, 1, 1) for values in (self.std, self.mean))
        pixels = images * scale + offset
        pixels = pixels.clamp(0, 1) if self.clip else pixels
        return pixels if soft_labels is None else _Soft(pixels, soft_labels), labels

    def _augment(self, images: Tensor, randoms: Tensor) -> Tensor:
        images = super()._augment(images, randoms)
        if self.augmentation is None:
            return images
        # Use the columns of crop, flip and cutout, which are off.
        return self.augmentation.each(images, randoms[:, 1:5] / RANDOM_LIMIT)

    def _dataset(self, images: Any, labels: Tensor, seed: int | None = None) -> Any:
        if isinstance(images, _Soft):
            return MemoryImages(images.images, images.labels, seed)
        return MemoryImages(images, labels, seed) if isinstance(images, Tensor) else self.real._dataset(images, labels)


@dataclass(frozen=True)
class _Soft:
    """Images and their class probabilities, indexed together."""

    images: Tensor
    labels: Tensor

    def __getitem__(self, index: Any) -> _Soft:
        return _Soft(self.images[index], self.labels[index])
