"""The fastest memory format for a network."""

from __future__ import annotations

import torch
from torch import nn


def fastest_memory_format(network: nn.Module) -> torch.memory_format:
    """Return `torch.channels_last` if most weights are convolutions, otherwise `torch.preserve_format`."""
    weights = [(p.ndim == 4, p.numel()) for p in network.parameters() if p.ndim > 1]
    convolutional = 2 * sum(size for is_conv, size in weights if is_conv) > sum(size for _, size in weights)
    return torch.channels_last if convolutional else torch.preserve_format


def to_memory_format(images: torch.Tensor, memory_format: torch.memory_format) -> torch.Tensor:
    """Convert images to a memory format, if necessary; `torch.preserve_format` returns them unchanged."""
    return images if memory_format is torch.preserve_format else images.contiguous(memory_format=memory_format)
