"""The handwritten digits of scikit-learn."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ._base import ImageDataModule


class Digits(ImageDataModule):
    """1,797 scans of handwritten digits, 8x8 pixels, bundled with scikit-learn: nothing to download.

    1,257 images are for training (and validation), 540 for test: scikit-learn's ``train_test_split`` with 30 %,
    stratified, seed 0. Pixels are scaled from 0..16 to 0..255.

    Args:
        batch_size: Training images per step in each process.
        **kwargs: The arguments of all image datamodules.
    """

    num_classes = 10
    in_chans = 1
    image_size = 8
    mean = (0.3056,)  # of the 1,257 training images
    std = (0.3760,)
    class_names = tuple("0123456789")

    def __init__(self, *, batch_size: int = 128, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, **kwargs)

    def _read(self, part: str) -> tuple[Tensor, Tensor]:
        images, labels = _parts()[part]
        return images.clone(), labels.clone()


@cache
def _parts() -> dict[str, tuple[Tensor, Tensor]]:
    """Return images and labels of the "train" and "test" part; the text file is read once per process."""
    # scikit-learn takes a second to import.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(images * 255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    train, test = train_test_split(range(len(labels)), test_size=0.3, stratify=labels, random_state=0)
    labels = torch.from_numpy(labels).long()
    return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}
