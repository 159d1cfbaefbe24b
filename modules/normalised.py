"""A network that takes pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .errors import InputError
from .networks import arranged


class Normalised(nn.Module):
    """Normalises images in front of a network, so that attacks can work in pixel units.

    Args:
        network: Takes images of mean 0 and standard deviation 1.
        mean: Mean of each channel of the pixels, or a tensor ``(C, 1, 1)``.
        std: Standard deviation of each channel of the pixels, or a tensor ``(C, 1, 1)``.
        memory_format: Arrangement of the images that the network gets.

    Raises:
        InputError: If ``mean`` and ``std`` differ in length or a standard deviation is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float] | Tensor,
        std: Sequence[float] | Tensor,
        *,
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> None:
        super().__init__()
        self.network = network
        self.memory_format = memory_format
        for name, values in zip(("mean", "std"), channel_statistics(mean, std), strict=True):
            self.register_buffer(name, values, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """What the network says of images ``(N, C, H, W)`` in pixel units."""
        return self.network(arranged((pixels - self.mean) / self.std, self.memory_format))


def channel_statistics(mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation as tensors ``(C, 1, 1)``; tensors are taken as they are.

    Raises:
        InputError: If they differ in length or a standard deviation is not positive.
    """
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        return mean, std
    if len(mean) != len(std):
        raise InputError(f"mean {list(mean)} and std {list(std)} must have one value for each channel")
    if any(not value > 0 for value in std):
        raise InputError(f"std must be positive but is {list(std)}")
    return torch.tensor(list(mean)).view(-1, 1, 1), torch.tensor(list(std)).view(-1, 1, 1)
