"""Small image sets that torchvision can read and download; sizes are training + test images."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
import torchvision.datasets as tv
from torch import Tensor

from ..modules.core.checks import check
from ..modules.core.errors import InputError
from ._base import ImageDataModule

_CIFAR100_CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel "
    "can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur "
    "dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion "
    "lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree "
    "pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea "
    "seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank "
    "telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm "
)


class _TorchvisionSet(ImageDataModule):
    """Base class of the sets below.

    Args:
        root: Folder with the data, or for the download. None takes the environment variable ``RECIPES_DATA``, or else
            ``data``.
        download: Download the set into ``root`` if it is missing.
        image_size: Height and width in pixels of resized images, e.g. 224 for a vision transformer. None keeps the
            set's size. Images are resized on the training device (bicubic, antialiased, clipped to [0, 1]), also in
            evaluation. Resizing comes after crop, flip and ``transform``, so ``crop_padding`` counts pixels of the
            original images. It comes before ``cutout``, which counts pixels of the resized images.
        **kwargs: The arguments of all image datamodules.

    Raises:
        InputError: If an argument is out of range, the data is not found, or the download fails.
    """

    _reader: Any

    def __init__(
        self, root: str | None = None, *, download: bool = False, image_size: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)  # checks crop_padding against the original image size
        check(image_size is None or image_size >= 1, "image_size", image_size, "at least 1, or none")
        self.root = root or os.environ.get("RECIPES_DATA", "data")
        self.download = download
        if image_size is not None and image_size != self.image_size:
            self.image_size = image_size
            self.preprocessing = {"crop_pct": 1.0, "interpolation": "bicubic"}

    def _open(self, part: str, *, download: bool = False) -> Any:
        which: dict[str, Any] = {"split": part} if self._reader in (tv.SVHN, tv.STL10) else {"train": part == "train"}
        return self._reader(self.root, download=download, **which)

    def prepare_data(self) -> None:
        """Download the set if asked for."""
        if not self.download:
            return
        for part in ("train", "test"):
            try:
                self._open(part, download=True)
            except (OSError, RuntimeError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise InputError(f"{type(self).__name__} could not be downloaded to {self.root}: {reason}") from error

    def _read(self, part: str) -> tuple[Tensor, Tensor]:
        try:
            dataset = self._open(part)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{type(self).__name__} not found in {self.root}: --data.download true fetches it,"
                " or point --data.root or RECIPES_DATA at it"
            ) from error
        images = torch.as_tensor(dataset.data)
        labels = torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
        if images.ndim == 3:  # MNIST has no channel axis
            images = images.unsqueeze(1)
        elif images.shape[-1] == 3:  # CIFAR has its channels last
            images = images.permute(0, 3, 1, 2)
        return images.contiguous(), labels.long()

    def _normalized(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.image_size:
            images = images.float() / 255 if images.dtype == torch.uint8 else images
            images = F.interpolate(images, (self.image_size, self.image_size), mode="bicubic", antialias=True)
            # Bicubic interpolation overshoots at edges, unlike the 8-bit images used in papers.
            images = images.clamp_(0, 1)
        return super()._normalized(images)


class _FlippedAndCropped(_TorchvisionSet):
    """Base class of the sets that are commonly augmented.

    Args:
        root: Folder with the data, or for the download. None takes the environment variable ``RECIPES_DATA``, or else
            ``data``.
        crop_padding: Largest shift of the random crop in pixels, in each direction; 0 is off. The defaults of
            ``crop_padding`` and ``flip`` come from ResNet (https://arxiv.org/abs/1512.03385) for CIFAR, from Random
            Erasing (https://arxiv.org/abs/1708.04896) for FashionMNIST and from Cutout
            (https://arxiv.org/abs/1708.04552) for STL10.
        flip: Flip images left to right with probability 0.5.
        **kwargs: The arguments of all torchvision sets.
    """

    def __init__(self, root: str | None = None, *, crop_padding: int = 4, flip: bool = True, **kwargs: Any) -> None:
        super().__init__(root, crop_padding=crop_padding, flip=flip, **kwargs)


class MNIST(_TorchvisionSet):
    """Handwritten digits (http://yann.lecun.com/exdb/mnist/): 60,000 + 10,000 gray images of 10 classes, 28x28."""

    _reader = tv.MNIST
    num_classes = 10
    in_chans = 1
    image_size = 28
    mean = (0.1307,)
    std = (0.3081,)
    class_names = tuple("0123456789")


class FashionMNIST(_FlippedAndCropped):
    """Articles of clothing (https://arxiv.org/abs/1708.07747): 60,000 + 10,000 gray images of 10 classes, 28x28."""

    _reader = tv.FashionMNIST
    num_classes = 10
    in_chans = 1
    image_size = 28
    mean = (0.2860,)  # of the training images, as widely published; likewise for SVHN and STL10 below
    std = (0.3530,)
    class_names = tuple(tv.FashionMNIST.classes)


class CIFAR10(_FlippedAndCropped):
    """CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html): 50,000 + 10,000 images of 10 classes, 32x32."""

    _reader = tv.CIFAR10
    num_classes = 10
    in_chans = 3
    image_size = 32
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR100(_FlippedAndCropped):
    """CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html): 50,000 + 10,000 images of 100 classes, 32x32."""

    _reader = tv.CIFAR100
    num_classes = 100
    in_chans = 3
    image_size = 32
    mean = (0.5071, 0.4866, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    class_names = tuple(_CIFAR100_CLASSES.split())


class SVHN(_TorchvisionSet):
    """House numbers (http://ufldl.stanford.edu/housenumbers/), no extra part: 73,257 + 26,032 images, 32x32."""

    _reader = tv.SVHN
    num_classes = 10
    in_chans = 3
    image_size = 32
    mean = (0.4377, 0.4438, 0.4728)
    std = (0.1980, 0.2010, 0.1970)
    class_names = tuple("0123456789")


class STL10(_FlippedAndCropped):
    """STL-10 (https://cs.stanford.edu/~acoates/stl10/): 5,000 + 8,000 labeled images of 10 classes, 96x96."""

    _reader = tv.STL10
    num_classes = 10
    in_chans = 3
    image_size = 96
    mean = (0.4467, 0.4398, 0.4066)
    std = (0.2603, 0.2566, 0.2713)
    class_names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")

    def __init__(self, root: str | None = None, *, crop_padding: int = 12, **kwargs: Any) -> None:
        super().__init__(root, crop_padding=crop_padding, **kwargs)
