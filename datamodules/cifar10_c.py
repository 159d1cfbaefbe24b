"""CIFAR-10-C: the test images of CIFAR-10 under common corruptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..modules.core.checks import check
from ..modules.core.errors import InputError
from .torchvision_sets import CIFAR10


class CIFAR10C(CIFAR10):
    """CIFAR-10 with corrupted test images (https://arxiv.org/abs/1903.12261); training images are CIFAR-10's.

    The files of https://zenodo.org/records/2535967 are read from ``root/CIFAR-10-C``: ``labels.npy``, and one file per
    corruption, such as ``fog.npy``. It has the test images at severity 1, then at severity 2, up to 5.

    Args:
        root: Folder with ``CIFAR-10-C``, and with CIFAR-10 for runs that train. None takes the environment variable
            ``RECIPES_DATA``, or else ``data``.
        corruption: Name of the file, without ``.npy``.
        severity: 1 to 5; None is all five, 50,000 images.
        **kwargs: The arguments of `CIFAR10`.

    Raises:
        InputError: If ``severity`` is out of range. At the start of a test: if a file is not found or does not fit.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        corruption: str = "gaussian_noise",
        severity: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        check(severity in (None, 1, 2, 3, 4, 5), "severity", severity, "1 to 5, or none")
        self.corruption = corruption
        self.severity = severity

    def _read(self, part: str) -> tuple[Tensor, Tensor]:
        if part != "test":
            return super()._read(part)
        images, labels = self._load(self.corruption), self._load("labels")
        if images.shape[1:] != (32, 32, 3) or len(images) != len(labels) or len(images) % 5:
            raise InputError(
                f"{self.corruption}.npy in {self._path} must hold 5 times the test images, (N, 32, 32, 3), and"
                f" labels.npy as many labels, but they have shapes {images.shape} and {labels.shape}: fetch them anew"
            )
        size = len(images) // 5
        rows = slice(None) if self.severity is None else slice((self.severity - 1) * size, self.severity * size)
        chosen = torch.from_numpy(np.array(images[rows])).permute(0, 3, 1, 2).contiguous()
        return chosen, torch.from_numpy(np.array(labels[rows])).long()

    @property
    def _path(self) -> Path:
        return Path(self.root, "CIFAR-10-C")

    def _load(self, name: str) -> Any:
        try:
            return np.load(self._path / f"{name}.npy", mmap_mode="r")
        except (OSError, ValueError) as error:
            there = ", ".join(sorted(path.stem for path in self._path.glob("*.npy") if path.stem != "labels")) or "none"
            raise InputError(
                f"corruption {self.corruption} needs {name}.npy in {self._path}, which has {there}:"
                " set data.corruption or data.root, or fetch the files (https://zenodo.org/records/2535967)"
            ) from error
