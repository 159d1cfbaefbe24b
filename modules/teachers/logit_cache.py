"""Cache of a network's logits on disk, with the images' pixels as keys."""

from __future__ import annotations

import itertools
import uuid
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..core.errors import InputError
from ..core.files import replaced


class LogitCache:
    """Cache of logits by image content; it needs no information on data set, order or augmentation.

    An image with exactly the pixels of an earlier image gets the cached logits. This happens if augmentation is off or
    replayed from the same seed. Logits of other images are computed and added. A lookup waits once for the device, and
    a batch with one new image is computed as a whole. The cache takes 16 bytes of memory per image; the logits stay in
    memory-mapped files.

    Args:
        folder: Folder with the logits of this network. Every process of a run adds separate files.

    Raises:
        InputError: If a file in the folder cannot be read.
    """

    LIMIT = 2**26
    """Bytes of new logits that trigger a save."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.computed = 0
        self._keys = torch.empty(0, dtype=torch.int64)  # sorted, on the device of the images
        self._rows = torch.empty(0, dtype=torch.int64)  # row of each key in the concatenated files
        self._starts = torch.empty(0, dtype=torch.int64)
        self._files: list[Tensor] = []
        self._new: list[tuple[Tensor, Tensor]] = []
        self._add(sorted(self.folder.glob("*.safetensors")))

    def __len__(self) -> int:
        return len(self._keys)

    def __call__(self, images: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the logits of images.

        Args:
            images: Shape ``(N, C, H, W)``.
            compute: Function from images to logits ``(N, classes)``.

        Returns:
            Float32, shape ``(N, classes)``.
        """
        keys = image_keys(images)
        new = torch.ones_like(keys, dtype=torch.bool)
        if len(self):
            self._keys, self._rows = self._keys.to(keys.device), self._rows.to(keys.device)
            places = torch.searchsorted(self._keys, keys).clamp(max=len(self) - 1)
            new = self._keys[places] != keys
            if not new.any():
                return self._read(self._rows[places].cpu()).to(keys.device)
        logits = compute(images).float()
        self.computed += len(images)
        self._new.append((keys[new].cpu(), logits[new].cpu()))
        if sum(part.numel() * 4 for _, part in self._new) > self.LIMIT:
            self.save()
        return logits

    def save(self) -> None:
        """Write the new logits; if the disk fails, warn and continue."""
        if not self._new:
            return
        keys, logits = (torch.cat(parts) for parts in zip(*self._new, strict=True))
        self._new = []
        keys, first = _distinct(keys)
        file = self.folder / f"{uuid.uuid4().hex}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replaced(file) as unfinished:
                safetensors.torch.save_file({"keys": keys, "logits": logits[first]}, unfinished)
        except (OSError, SafetensorError) as error:
            warnings.warn(f"cache {self.folder} could not be written ({error}): the run goes on", stacklevel=2)
            return
        self._add([file])

    def _add(self, files: list[Path]) -> None:
        """Add the logits of more files."""
        found = [self._keys.cpu()]
        for file in files:
            try:
                part = safetensors.torch.load_file(file)
                keys, logits = part["keys"], part["logits"]
            except (SafetensorError, KeyError, OSError) as error:
                raise InputError(f"cache file {file} cannot be read ({error}): remove it") from error
            start = self._starts[-1:] + len(self._files[-1]) if self._files else torch.zeros(1, dtype=torch.int64)
            self._starts = torch.cat([self._starts, start])
            self._files.append(logits)
            self._rows = torch.cat([self._rows.cpu(), start + torch.arange(len(keys))])
            found.append(keys)
        self._keys, first = _distinct(torch.cat(found))
        self._rows = self._rows[first.to(self._rows.device)]

    def _read(self, rows: Tensor) -> Tensor:
        """Return the logits in these rows."""
        file = torch.bucketize(rows, self._starts, right=True) - 1
        logits = self._files[0].new_empty(len(rows), self._files[0].shape[1])
        for index in file.unique().tolist():
            logits[file == index] = self._files[index][rows[file == index] - self._starts[index]]
        return logits


def answering_folder(folder: Path, answer: Tensor) -> Path:
    """Return the cache folder of the teacher with this output, among ``FOLDER``, ``FOLDER-2`` and so on.

    The output is stored in each folder and compared up to rounding differences between devices and batch sizes.

    Args:
        folder: The first folder to try; the others are called ``FOLDER-2``, ``FOLDER-3``, and so on.
        answer: Logits of fixed images.
    """
    answer = answer.float().cpu()
    tolerance = _ROUNDING if folder.name.endswith(("float32", "float64")) else _HALF_ROUNDING
    for number in itertools.count(1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        file = place / "answer.probe"
        if not file.exists():
            try:
                place.mkdir(parents=True, exist_ok=True)
                with replaced(file) as unfinished:
                    safetensors.torch.save_file({"answer": answer.contiguous()}, unfinished)
            except (OSError, SafetensorError) as error:
                warnings.warn(f"cache {place} could not be written ({error}): the run goes on", stacklevel=2)
            return place
        try:
            known = safetensors.torch.load_file(file)["answer"]
        except (SafetensorError, KeyError, OSError) as error:
            raise InputError(f"cache file {file} cannot be read ({error}): remove its folder") from error
        # A class with teacher probability 0 has the logit -inf.
        scale = known[known.isfinite()].abs().max() if known.isfinite().any() else 0.0
        if known.shape == answer.shape and torch.allclose(known, answer, rtol=0, atol=tolerance * float(scale)):
            return place
    raise AssertionError


# Largest difference between two outputs of one teacher, as a share of the largest logit.
_ROUNDING, _HALF_ROUNDING = 1e-4, 3e-2


def _distinct(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct keys, sorted, and the index of the first occurrence of each."""
    keys, order = keys.sort(stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    return keys[first], order[first]


def image_keys(images: Tensor) -> Tensor:
    """Compute a 64-bit key of each image; equal bits give equal keys on any device.

    Args:
        images: Shape ``(N, C, H, W)``, of any floating-point type.

    Returns:
        int64, shape ``(N,)``.
    """
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[images.element_size()]
    size = images[0].numel()
    factors = _factors(size, images.device)
    keys = []
    for part in images.split(max(1, _CHUNK // size)):
        # If images have few different values, e.g. 8-bit ones, many low bits are equal; this mixes them.
        mixed = part.flatten(1).view(bits).long() * _MIX
        keys.append(((mixed ^ (mixed >> 29)) * factors).sum(1))
    return torch.cat(keys)


@cache
def _factors(size: int, device: torch.device) -> Tensor:
    """Return odd random factors, one per pixel."""
    generator = torch.Generator().manual_seed(size)
    return (torch.randint(-(2**62), 2**62, (size,), generator=generator) * 2 + 1).to(device)


# Number of pixels that are converted to 64-bit integers at once.
_CHUNK = 2**22

# 2^64 over the golden ratio, as a signed number: the usual multiplier of multiplicative hashing.
_MIX = -7046029254386353131
