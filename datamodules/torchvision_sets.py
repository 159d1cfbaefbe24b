"""The small image sets that torchvision can read and download."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

import torch
import torchvision.datasets as tv
from torch import Tensor

from ..modules.errors import InputError
from ._base import ImageDataModule


class _TorchvisionSet(ImageDataModule):
    """Base of the sets below.

    Args:
        root: Folder that holds the data, or receives the download; None takes the environment variable
            ``RECIPES_DATA``, or else ``data``.
        download: Download the set into ``root`` unless it is there.
        **kwargs: The arguments all image datamodules share.
    """

    def __init__(self, root: str | None = None, *, download: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root or os.environ.get("RECIPES_DATA", "data")
        self.download = download

    @abstractmethod
    def _open(self, part: str, *, download: bool = False) -> Any:
        """The torchvision data set of a part."""

    def prepare_data(self) -> None:
        """Download the set where that was asked for."""
        if self.download:
            for part in ("train", "test"):
                try:
                    self._open(part, download=True)
                except (OSError, RuntimeError) as error:
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise InputError(
                        f"{type(self).__name__} could not be downloaded to {self.root}: {reason}"
                    ) from error

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


class CIFAR10(_TorchvisionSet):
    """CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html): 50,000 and 10,000 images of 10 classes, 32x32 RGB.

    Args:
        root: Folder that holds the data, or receives the download; None takes the environment variable
            ``RECIPES_DATA``, or else ``data``.
        crop_padding: Pixels by which a random crop may shift the image in each direction; 0 is off.
        flip: Mirror every second image left to right, at random.
        **kwargs: The arguments all torchvision sets share.
    """

    num_classes = 10
    in_chans = 3
    image_size = 32
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root: str | None = None, *, crop_padding: int = 4, flip: bool = True, **kwargs: Any) -> None:
        super().__init__(root, crop_padding=crop_padding, flip=flip, **kwargs)

    def _open(self, part: str, *, download: bool = False) -> tv.CIFAR10:
        return tv.CIFAR10(self.root, train=part == "train", download=download)
