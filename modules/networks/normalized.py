"""A network that takes images in pixel units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ._memory_format import to_memory_format


class Normalized(nn.Module):
    """Network that normalizes its images first, so that attacks can work in pixel units.

    Args:
        network: Network for normalized images.
        mean: Mean per channel of the pixels, or a tensor ``(C, 1, 1)``.
        std: Standard deviation per channel of the pixels, or a tensor ``(C, 1, 1)``.
        memory_format: Memory format of the images given to the network.

    Raises:
        InputError: If ``mean`` and ``std`` differ in length, or a standard deviation is not positive.
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
        if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
            mean, std = channel_statistics([float(m) for m in mean], [float(s) for s in std], in_chans=len(mean))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        weight = next(network.parameters(), None)
        self._dtype = torch.get_default_dtype() if weight is None else weight.dtype

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the network's outputs for images ``(N, C, H, W)`` in pixel units."""
        return self.network(to_memory_format(((pixels - self.mean) / self.std).to(self._dtype), self.memory_format))


def channel_statistics(
    mean: Sequence[float] | None, std: Sequence[float] | None, *, in_chans: int
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation as tensors ``(C, 1, 1)``; None stands for 0 and 1.

    Raises:
        InputError: If the number of values is not ``in_chans`` or a standard deviation is not positive.
    """
    mean = [0.0] * in_chans if mean is None else list(mean)
    std = [1.0] * in_chans if std is None else list(std)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != in_chans:
            raise InputError(f"{name} {values} must have one value for each of in_chans={in_chans} channels")
    if any(not value > 0 for value in std):
        raise InputError(f"std must be positive but is {std}")
    return torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)


def register_statistics(
    module: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None, *, in_chans: int
) -> None:
    """Register the tensors of `channel_statistics` as unsaved buffers ``mean`` and ``std`` of a module.

    If both are None, `statistics_of_data` can fill them later.
    """
    object.__setattr__(module, "takes_statistics", mean is None and std is None)
    for name, values in zip(("mean", "std"), channel_statistics(mean, std, in_chans=in_chans), strict=True):
        module.register_buffer(name, values, persistent=False)


def statistics_of_data(module: nn.Module, data: object) -> None:
    """Fill the buffers of `register_statistics` with a datamodule's ``mean`` and ``std``, unless they were given.

    Raises:
        InputError: If the datamodule's values do not fit the number of channels.
    """
    mean, std = getattr(data, "mean", None), getattr(data, "std", None)
    if not module.takes_statistics or mean is None or std is None:
        return
    buffers: dict[str, Any] = dict(module.named_buffers(recurse=False))
    for name, values in zip(("mean", "std"), channel_statistics(mean, std, in_chans=len(buffers["mean"])), strict=True):
        buffers[name].copy_(values)
