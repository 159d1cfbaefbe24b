"""A network's logits on disk, found again by the images themselves."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from .errors import InputError


class LogitCache:
    """Remembers logits by the content of each image, so nothing has to be known of data set, order or augmentation.

    An image whose pixels are bit for bit those of an earlier one, with augmentation off or replayed from the same
    seed, finds its logits; any other is computed and added. A batch is looked up with one wait for the device, and
    is computed as a whole if one of its images is new.

    Args:
        folder: Where the logits of this network are; made when something is saved. Every process of a run adds files
            of its own.

    Raises:
        InputError: If a file in the folder cannot be read.
    """

    LIMIT = 2**26
    """Bytes of new logits after which they are saved without being asked."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._keys = torch.empty(0, dtype=torch.int64)
        self._logits = torch.empty(0, 0)
        self._new: list[tuple[Tensor, Tensor]] = []
        self.computed = 0
        for file in sorted(self.folder.glob("*.safetensors")):
            try:
                part = safetensors.torch.load_file(file)
                self._merge(part["keys"], part["logits"])
            except (SafetensorError, KeyError, RuntimeError) as error:
                raise InputError(f"cache file {file} cannot be read ({error}): remove it") from error

    def __len__(self) -> int:
        return len(self._keys)

    def __call__(self, images: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits of images.

        Args:
            images: Shape ``(N, C, H, W)``.
            compute: Gives the logits ``(N, classes)`` of images.

        Returns:
            Float32, shape ``(N, classes)``.
        """
        keys = image_keys(images)
        if len(self):
            self._keys, self._logits = self._keys.to(keys.device), self._logits.to(keys.device)
            places = torch.searchsorted(self._keys, keys).clamp(max=len(self) - 1)
            new = self._keys[places] != keys
            if not new.any():
                return self._logits[places]
        else:
            new = torch.ones_like(keys, dtype=torch.bool)
        logits = compute(images).float()
        self.computed += len(images)
        self._new.append((keys[new], logits[new]))
        if sum(part.numel() * 4 for _, part in self._new) > self.LIMIT:
            self.save()
        return logits

    def save(self) -> None:
        """Write what is new."""
        if not self._new:
            return
        keys, logits = (torch.cat(parts) for parts in zip(*self._new, strict=True))
        self._new = []
        self.folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        unfinished = self.folder / f"{name}.part"
        safetensors.torch.save_file({"keys": keys.cpu(), "logits": logits.cpu()}, unfinished)
        unfinished.rename(self.folder / f"{name}.safetensors")
        self._merge(keys, logits)

    def _merge(self, keys: Tensor, logits: Tensor) -> None:
        if len(self):
            keys = torch.cat([self._keys.to(keys.device), keys])
            logits = torch.cat([self._logits.to(keys.device), logits])
        self._keys, order = keys.sort()
        self._logits = logits[order]


def image_keys(images: Tensor) -> Tensor:
    """A 64-bit number for each image, the same for the same bits on any device.

    A random linear map modulo 2^64: of a million images two share a number with a probability below 10^-6.

    Args:
        images: Shape ``(N, C, H, W)``, of any floating-point type.

    Returns:
        int64, shape ``(N,)``.
    """
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[images.element_size()]
    size = images[0].numel()
    generator = torch.Generator().manual_seed(size)
    factors = torch.randint(-(2**62), 2**62, (size,), generator=generator) * 2 + 1
    factors = factors.to(images.device)
    parts = images.split(max(1, _CHUNK // size))
    return torch.cat([(part.flatten(1).view(bits).long() * factors).sum(1) for part in parts])


# Pixels turned into 64-bit integers at a time.
_CHUNK = 2**22
