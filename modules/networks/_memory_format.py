"""The fastest memory format for a network."""

from __future__ import annotations

import torch
from torch import nn


def fastest_memory_format(network: nn.Module) -> torch.memory_format:
    """`torch.channels_last` for networks with most weights in convolutions, so not for a vision transformer."""
    weights = [(p.ndim == 4, p.numel()) for p in network.parameters() if p.ndim > 1]
    convolutional = 2 * sum(size for is_conv, size in weights if is_conv) > sum(size for _, size in weights)
    return torch.channels_last if convolutional else torch.preserve_format


def to_memory_format(images: torch.Tensor, memory_format: torch.memory_format) -> torch.Tensor:
    """The images in a memory format; as they are for `torch.preserve_format`, or if they have it already."""
    return images if memory_format is torch.preserve_format else images.contiguous(memory_format=memory_format)
