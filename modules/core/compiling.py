"""Compilation of networks that carry hooks."""

from __future__ import annotations

import torch
from torch import nn


def compile_network(network: nn.Module, *, hooked: bool) -> None:
    """Compile a network in place.

    torch reuses compiled code for networks of the same classes and does not check their hooks. If layers carry hooks,
    this function therefore clears all compiled code of the process. Networks in use are compiled again at their next
    call.

    Args:
        network: The network.
        hooked: True if layers carry hooks, e.g. from `FeatureCapture`.
    """
    if hooked:
        torch.compiler.reset()
    network.compile()
