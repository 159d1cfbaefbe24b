"""Augmentation of whole batches of small images, with one row of random numbers per image.

The augmentation of an image depends only on its row, not on the batch, the worker or the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.sampling import isolated_rng


def random_crop_flip(
    images: Tensor,
    randoms: Tensor,
    *,
    padding: int = 4,
    mode: Literal["reflect", "zero"] = "reflect",
    flip: bool = True,
) -> Tensor:
    """Pad each image, crop it at random and flip half of the images left to right, at random.

    Crop and flip are a single gather, so every pixel is moved once.

    Args:
        images: Any dtype, shape ``(N, C, H, W)``.
        randoms: Uniform in [0, 1), shape ``(N, 3)``: vertical and horizontal position of the crop; flip if below 0.5.
        padding: Pixels added on each side, less than H and W.
        mode: Padding values: the image mirrored at its outermost pixel ("reflect"), or zeros.
        flip: False only crops.

    Returns:
        Images of the same shape and dtype.
    """
    number, channels, height, width = images.shape
    shifts = (randoms[:, :2] * (2 * padding + 1)).long() - padding
    rows = torch.arange(height, device=images.device) + shifts[:, :1]
    columns = torch.arange(width, device=images.device) + shifts[:, 1:]
    if flip:
        columns = torch.where(randoms[:, 2:3] < 0.5, columns.flip(1), columns)
    inside = None
    if mode == "reflect":
        rows = height - 1 - (height - 1 - rows.abs()).abs()
        columns = width - 1 - (width - 1 - columns.abs()).abs()
    else:
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(number, 1, -1).expand(-1, channels, -1)
    cropped = images.reshape(number, channels, -1).gather(2, pixels).view_as(images)
    return cropped if inside is None else cropped * inside[:, None]


def random_cutout(images: Tensor, randoms: Tensor, *, size: int) -> Tensor:
    """Set a random square in each image to 0 (https://arxiv.org/abs/1708.04552).

    The center lies anywhere in the image. For an even side it lies between pixels and has one more possible position
    than there are pixels, so that both borders are treated alike.

    Args:
        images: Normalized images, shape ``(N, C, H, W)``; 0 is then the mean color.
        randoms: Uniform in [0, 1), shape ``(N, 2)``: vertical and horizontal position of the center.
        size: Side of the square in pixels; parts outside the image are ignored.
    """
    height, width = images.shape[-2:]
    top = (randoms[:, :1] * (height + 1 - size % 2)).long() - size // 2
    left = (randoms[:, 1:] * (width + 1 - size % 2)).long() - size // 2
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    in_rows = (rows >= top) & (rows < top + size)
    in_columns = (columns >= left) & (columns < left + size)
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Compute ``(images / 255 - mean) / std`` for uint8 images, ``(images - mean) / std`` for others, in float32.

    Args:
        images: Shape ``(N, C, H, W)``, uint8 in [0, 255] or floating in [0, 1].
        mean: Mean per channel on the scale [0, 1].
        std: Standard deviation per channel on the same scale.
    """
    scale, offset = _affine(tuple(mean), tuple(std), 255 if images.dtype == torch.uint8 else 1, images.device)
    return images.to(torch.float32, copy=True).mul_(scale).add_(offset)


def transform_each(images: Tensor, seeds: Sequence[int], transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a transform that draws from the global generators to each image, with one seed per image.

    Images are transformed one by one, because many transforms draw one set of parameters for a whole batch.

    Args:
        images: Shape ``(N, C, H, W)``.
        seeds: One 32-bit seed per image; the generators are restored afterwards.
        transform: Takes and returns images of shape ``(1, C, H, W)``.

    Raises:
        InputError: If the transform changes the shape.
    """
    results = []
    for image, seed in zip(images.split(1), seeds, strict=True):
        with isolated_rng(seed, image.device):
            results.append(transform(image))
        if results[-1].shape != image.shape:
            raise InputError(
                f"transform must return the shape it is given, {tuple(image.shape)},"
                f" but returned {tuple(results[-1].shape)}"
            )
    return torch.cat(results)


@lru_cache(maxsize=32)
def _affine(mean: tuple[float, ...], std: tuple[float, ...], full: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the factor and offset of :func:`normalize`, cached on the device because a copy would wait for it."""
    scale = 1 / torch.tensor(std, dtype=torch.float64).view(-1, 1, 1)
    offset = -torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1) * scale
    return (scale / full).to(device, torch.float32), offset.to(device, torch.float32)
