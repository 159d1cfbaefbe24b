"""Features of any network as feature maps ``(N, C, h, w)``."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ToMaps(nn.Module):
    """Conversion of features to maps ``(N, C, h, w)``.

    Tokens ``(N, L, C)`` become a square map; class and register tokens in front of the square are dropped. Vectors
    ``(N, C)`` become a map of one pixel.

    Args:
        shape: Shape of the features, including the batch.
        channels_last: True if maps come as ``(N, h, w, C)``.
    """

    def __init__(self, shape: tuple[int, ...], *, channels_last: bool = False) -> None:
        super().__init__()
        self.channels_last = channels_last and len(shape) == 4
        self.side = math.isqrt(shape[1]) if len(shape) == 3 else 0
        self.channels = shape[1] if len(shape) == 4 and not self.channels_last else shape[-1]
        if len(shape) == 4:
            self.size = (shape[1], shape[2]) if self.channels_last else (shape[2], shape[3])
        else:
            self.size = (max(self.side, 1), max(self.side, 1))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the maps."""
        return self.channels, *self.size

    def forward(self, features: Tensor) -> Tensor:
        """Return the features as maps ``(N, C, h, w)``."""
        if features.ndim == 4:
            return features.permute(0, 3, 1, 2) if self.channels_last else features
        if features.ndim == 3:
            square = features[:, features.shape[1] - self.side**2 :]
            return square.transpose(1, 2).unflatten(2, self.size)
        return features[:, :, None, None]


def at_least_single(values: Tensor) -> Tensor:
    """Convert to float32; float64 values stay float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cosines(features: Tensor) -> Tensor:
    """Return the inner products ``(N, N)`` of rows ``(N, D)``, in at least float32 whatever the run's precision."""
    with torch.autocast(features.device.type, enabled=False):
        rows = at_least_single(features)
        return rows @ rows.T


def channels_are_last(shape: tuple[int, ...], hint: str) -> bool:
    """Return whether a feature map of square images has its channels last; ``hint`` decides if the shape cannot."""
    if len(shape) != 4:
        return False
    if shape[1] == shape[2] != shape[3]:
        return True
    return "NHWC" in hint.upper() if shape[1] == shape[2] == shape[3] else False
