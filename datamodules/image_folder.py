"""Images in folders named after their class, from small sets up to ImageNet."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor

from ..modules.core.checks import check, not_negative, positive
from ..modules.core.errors import InputError
from ._base import ImageDataModule
from ._datasets import EpochDataset, FileImages, MemoryImages
from ._folders import encoded, image_files, labelled_files, part_folders, subfolders


class ImageFolder(ImageDataModule):
    """Any set of images laid out as ``root/{train,val,test}/<class>/<files>``.

    ``train/`` is needed to fit, unless ``root`` itself has the class folders. If there is a ``test/``, ``val/`` is used
    for validation and ``val_fraction`` is ignored. Without ``test/``, as in ImageNet, ``val/`` is the test set, and
    validation images are taken from ``train/`` by ``val_fraction``. So no model is selected on the images of the
    reported result.

    Large images are read and augmented by worker processes, as in timm. With ``in_memory`` they are decoded once, kept
    as uint8 and augmented on the training device like the small image sets.

    Args:
        root: Folder with this layout. None takes the environment variable ``RECIPES_DATA``, or else ``data``.
        image_size: Height and width in pixels of the network's input.
        in_chans: 3 converts every image to RGB, 1 to gray.
        mean: Channel means of images in [0, 1]; None uses ImageNet's.
        std: Channel standard deviations of images in [0, 1]; None uses ImageNet's.
        in_memory: Decode all images once, resize them to ``image_size``, and keep them in memory.
        num_workers: Worker processes that load batches. None is one per core, at most 8, and 0 with ``in_memory``.
        predict_dir: Folder of images, without class folders, to predict. None predicts the test images.
        skip_corrupt: Replace an unreadable image by the next readable image of the same folder, and warn at the end.
            False stops with the name of the file.
        flip: Flip images left to right with probability 0.5.
        crop_padding: Largest shift of the random crop in pixels, in each direction; only with ``in_memory``.
        auto_augment: A policy of timm such as ``rand-m9-mstd0.5`` or ``augmix-m3``; not with ``in_memory``.
        color_jitter: Strength of random brightness, contrast and saturation, unless ``auto_augment`` is given; not with
            ``in_memory``.
        random_erasing: Share of the training images that get a random rectangle in the mean color; not with
            ``in_memory`` (use ``cutout``).
        scale: Smallest and largest share of the area in a random crop; not with ``in_memory``. The default is from
            Inception (https://arxiv.org/abs/1409.4842).
        crop_pct: Ratio of the center crop's side to the resized image's shorter side in evaluation; not with
            ``in_memory``.
        interpolation: Interpolation when resizing; "random" is bilinear or bicubic in training, bicubic in evaluation.
        **kwargs: The arguments of all image datamodules.

    Attributes:
        corrupt_files: Names of the files replaced by ``skip_corrupt`` so far.

    Raises:
        InputError: If there is no such folder, an argument is out of range, or a class folder is empty. Also if the
            class folders of two parts differ (at ``setup``), or an image cannot be read.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        image_size: int = 224,
        in_chans: Literal[1, 3] = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        in_memory: bool = False,
        num_workers: int | None = None,
        predict_dir: str | None = None,
        skip_corrupt: bool = False,
        flip: bool = True,
        crop_padding: int = 4,
        auto_augment: str | None = None,
        color_jitter: float = 0.0,
        random_erasing: float = 0.0,
        scale: tuple[float, float] = (0.08, 1.0),
        crop_pct: float = 0.875,
        interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic",
        **kwargs: Any,
    ) -> None:
        check(image_size >= 1, "image_size", image_size, "at least 1")
        check(in_chans in (1, 3), "in_chans", in_chans, "1 or 3")
        self.image_size = image_size
        self.in_chans = in_chans
        # ImageNet's values, and their averages for gray images.
        self.mean = tuple(mean) if mean is not None else (0.485, 0.456, 0.406) if in_chans == 3 else (0.449,)
        self.std = tuple(std) if std is not None else (0.229, 0.224, 0.225) if in_chans == 3 else (0.226,)
        if num_workers is None:
            num_workers = 0 if in_memory else min(8, os.cpu_count() or 1)
        super().__init__(
            num_workers=num_workers,
            crop_padding=crop_padding if in_memory else 0,
            flip=flip and in_memory,
            **kwargs,
        )
        check(len(self.mean) == in_chans, "mean", mean, f"{in_chans} numbers, one per channel")
        check(len(self.std) == in_chans, "std", std, f"{in_chans} numbers, one per channel")
        positive(**{f"std[{channel}]": value for channel, value in enumerate(self.std)})
        not_negative(color_jitter=color_jitter)
        check(0 <= random_erasing <= 1, "random_erasing", random_erasing, "in [0, 1]")
        check(len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1, "scale", scale, "two rising shares in (0, 1]")
        check(0 < crop_pct <= 1, "crop_pct", crop_pct, "in (0, 1]")
        check(
            not (in_memory and (auto_augment or color_jitter or random_erasing)),
            "in_memory",
            in_memory,
            "false for auto_augment, color_jitter and random_erasing: use crop_padding, flip, cutout or transform",
        )
        self.root = root or os.environ.get("RECIPES_DATA", "data")
        self.in_memory = in_memory
        self.predict_dir = predict_dir
        self.skip_corrupt = skip_corrupt
        self.preprocessing = {
            "crop_pct": 1.0 if in_memory else crop_pct,
            "interpolation": "bicubic" if in_memory or interpolation == "random" else interpolation,
        }
        if in_memory:
            self._train_transform = self._eval_transform = _resize(image_size, in_chans)
        else:
            self._train_transform, self._eval_transform = _timm_transforms(
                in_chans=in_chans,
                image_size=image_size,
                mean=self.mean,
                flip=flip,
                auto_augment=auto_augment,
                color_jitter=color_jitter,
                random_erasing=random_erasing,
                scale=scale,
                crop_pct=crop_pct,
                interpolation=interpolation,
            )
        self._folders = part_folders(self.root)
        self._own_val = "val" in self._folders
        self.class_names = tuple(subfolders(next(iter(self._folders.values()))))
        self.num_classes = len(self.class_names)
        self._paths: dict[str, np.ndarray] = {}
        self._readers: list[FileImages] = []

    @property
    def corrupt_files(self) -> list[str]:
        """Names of the files replaced by ``skip_corrupt`` so far."""
        return sorted({path for reader in self._readers for path in reader.corrupt()})

    def setup(self, stage: str) -> None:
        """List the files of the stage and, with ``in_memory``, decode them, once."""
        if self._folders.get("test", "").endswith("val") and stage != "predict":
            warnings.warn(
                f"{self.root} has no test folder: its val folder is the test set, and validation images are taken"
                " from the training images (val_fraction)",
                stacklevel=2,
            )
        if stage == "predict" and self.predict_dir is not None:
            if self.predict_set is None:
                self._setup_predict(self.predict_dir)
            return
        super().setup(stage)
        if stage == "predict":
            self.predict_names = [os.fsdecode(path) for path in self._paths["test"]]

    def teardown(self, stage: str) -> None:
        """Warn of the files that were replaced."""
        super().teardown(stage)
        if files := self.corrupt_files:
            warnings.warn(
                f"{len(files)} image files could not be read and were replaced by others of their class:"
                f" {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}",
                stacklevel=2,
            )

    def _setup_predict(self, folder: str) -> None:
        self.predict_names = image_files(folder)
        if not self.predict_names:
            raise InputError(f"predict_dir {folder} holds no images: point --data.predict_dir at a folder that does")
        paths, labels = encoded(self.predict_names), torch.full((len(self.predict_names),), -1)
        # No replacement of corrupt files: the prediction would be for another image.
        reader = FileImages(paths, labels, self._eval_transform)
        self.predict_set = MemoryImages(_decode(reader), labels) if self.in_memory else reader

    def _read(self, part: str) -> tuple[np.ndarray | Tensor, Tensor]:
        if part not in self._folders:
            raise InputError(f"{self.root} has no {part} images: put them in {self.root}/{part}/<class>/")
        self._paths[part], labels = labelled_files(self._folders[part], self.class_names)
        if not self.in_memory:
            return self._paths[part], labels
        reader = FileImages(self._paths[part], labels, self._eval_transform, skip_corrupt=self.skip_corrupt)
        self._readers.append(reader)
        return _decode(reader), labels

    def _dataset(self, images: np.ndarray | Tensor, labels: Tensor, seed: int | None = None) -> EpochDataset:
        if isinstance(images, Tensor):
            return MemoryImages(images, labels, seed)
        transform = self._eval_transform if seed is None else self._train_transform
        self._readers.append(FileImages(images, labels, transform, seed, skip_corrupt=self.skip_corrupt))
        return self._readers[-1]


def _decode(reader: FileImages) -> Tensor:
    """Return all images of a reader, uint8 ``(N, C, H, W)``."""
    # Threads were slower: small images take little time in the decoder and much in Python.
    return torch.stack([reader.read(index) for index in range(len(reader))])


def _resize(size: int, in_chans: int) -> Callable[[Image.Image], Tensor]:
    """Return a transform that crops an image to a square and resizes it, unless it has the size already."""

    def transform(image: Image.Image) -> Tensor:
        if image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
        return pil_to_tensor(image if in_chans == 3 else image.convert("L"))

    return transform


def _timm_transforms(
    *,
    in_chans: int,
    image_size: int,
    mean: tuple[float, ...],
    flip: bool,
    auto_augment: str | None,
    color_jitter: float,
    random_erasing: float,
    scale: tuple[float, float],
    crop_pct: float,
    interpolation: str,
) -> tuple[v2.Compose, v2.Compose]:
    """Return transforms of PIL images to uint8 tensors, for training and for evaluation."""
    from timm.data.transforms_factory import transforms_imagenet_eval, transforms_imagenet_train

    try:
        train = transforms_imagenet_train(
            image_size,
            scale=scale,
            hflip=0.5 if flip else 0.0,
            color_jitter=color_jitter or None,  # type: ignore
            auto_augment=auto_augment,
            interpolation=interpolation,
            mean=mean if in_chans == 3 else mean * 3,
            normalize=False,
        )
    except (AssertionError, ValueError, KeyError) as error:
        raise InputError(f"auto_augment={auto_augment!r} is no policy of timm's: try rand-m9-mstd0.5-inc1") from error
    evaluate = transforms_imagenet_eval(
        image_size,
        crop_pct=crop_pct,
        interpolation="bicubic" if interpolation == "random" else interpolation,
        normalize=False,
    )
    grey = [] if in_chans == 3 else [v2.Grayscale()]
    fill: Any = [round(255 * value) for value in mean]
    erasing = [v2.RandomErasing(random_erasing, value=fill)] if random_erasing else []
    *steps, to_tensor = train.transforms  # type: ignore
    *eval_steps, _ = evaluate.transforms  # type: ignore
    return v2.Compose([*steps, *grey, to_tensor, *erasing]), v2.Compose([*eval_steps, *grey, to_tensor])
