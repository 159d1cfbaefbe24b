"""Augmentation of whole batches of small images, with one row of random numbers per image.

An image's augmentation depends on its own row alone: not on the batch it is in, the worker or the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def random_crop(
    images: Tensor, randoms: Tensor, *, padding: int = 4, mode: Literal["reflect", "zero"] = "reflect"
) -> Tensor:
    """Shift each image by up to ``padding`` pixels, like a random crop of the padded image.

    Args:
        images: Any dtype, shape ``(N, C, H, W)``.
        randoms: Uniform in [0, 1), shape ``(N, 2)``: vertical and horizontal place of the crop.
        padding: Pixels added on each side.
        mode: What the border is filled with: the image mirrored at its edge pixel, or zeros.

    Returns:
        Images of the same shape and dtype.
    """
    shifts = (randoms * (2 * padding + 1)).long() - padding
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) + shifts[:, :1]
    columns = torch.arange(width, device=images.device) + shifts[:, 1:]
    if mode == "reflect":
        rows = (height - 1) - ((height - 1) - rows.abs()).abs()
        columns = (width - 1) - ((width - 1) - columns.abs()).abs()
        return _gather_pixels(images, rows, columns)
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None, None, :]
    return _gather_pixels(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1)) * inside


def random_flip(images: Tensor, randoms: Tensor) -> Tensor:
    """Mirror each image left to right with probability 0.5.

    Args:
        images: Any dtype, shape ``(N, C, H, W)``.
        randoms: Uniform in [0, 1), shape ``(N,)``.
    """
    return torch.where((randoms < 0.5).view(-1, 1, 1, 1), images.flip(-1), images)


def random_cutout(images: Tensor, randoms: Tensor, *, size: int) -> Tensor:
    """Set a square of each image to 0, its centre anywhere in the image (https://arxiv.org/abs/1708.04552).

    Args:
        images: Shape ``(N, C, H, W)``; normalised, so that 0 is the mean colour.
        randoms: Uniform in [0, 1), shape ``(N, 2)``: vertical and horizontal place of the centre.
        size: Side of the square in pixels; the part beyond the border is cut off.
    """
    height, width = images.shape[-2:]
    top = (randoms[:, :1] * height).long() - size // 2
    left = (randoms[:, 1:] * width).long() - size // 2
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    in_rows = (rows >= top) & (rows < top + size)
    in_columns = (columns >= left) & (columns < left + size)
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(images / 255 - mean) / std`` in float32 for uint8 images, ``(images - mean) / std`` for others.

    Args:
        images: Shape ``(N, C, H, W)``, uint8 in [0, 255] or floating in [0, 1].
        mean: Mean of each channel on the scale of [0, 1].
        std: Standard deviation of each channel on the same scale.
    """
    scale = 1 / torch.tensor(std).view(-1, 1, 1)
    offset = -torch.tensor(mean).view(-1, 1, 1) * scale
    if images.dtype == torch.uint8:
        scale = scale / 255
    return (images * scale.to(images.device)).add_(offset.to(images.device))


def _gather_pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``images[n, :, rows[n, i], columns[n, j]]``, with one flat index per pixel."""
    number, channels, height, width = images.shape
    index = (rows[:, :, None] * width + columns[:, None, :]).view(number, 1, -1).expand(-1, channels, -1)
    return images.reshape(number, channels, height * width).gather(2, index).view_as(images)
