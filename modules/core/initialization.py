"""PyTorch's default initialization for any network."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def reset_parameters(network: nn.Module) -> None:
    """Redraw all weights with the default initialization of PyTorch's layers.

    It calls ``reset_parameters`` of every layer that has this method, and draws from the global generator. Convolutions
    and linear layers are uniform, ``kaiming_uniform_(a=√5)``; norms get weight 1 and bias 0. Parameters outside such
    layers, such as the class token of a vision transformer, stay.

    Args:
        network: Network to change in place.
    """
    for module in network.modules():
        reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
        if reset is not None and next(module.parameters(recurse=False), None) is not None:
            reset()
