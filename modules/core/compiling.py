"""Compiling networks that carry hooks."""

from __future__ import annotations

import torch
from torch import nn


def compile_network(network: nn.Module, *, hooked: bool) -> None:
    """Compile a network in place.

    For another network of the same classes, torch takes what it compiled before, and does not look at hooks then. So
    the compiled code of this process is forgotten where hooks matter; networks in use are compiled again when called.

    Args:
        network: The network.
        hooked: Whether layers carry hooks, e.g. of `FeatureCapture`.
    """
    if hooked:
        torch.compiler.reset()
    network.compile()
