"""A second set of batch statistics for one network."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.errors import InputError


class SecondBatchNorm(nn.Module):
    """Runs a network with batch normalisation of its own: weights, biases and running statistics.

    Images of two kinds, such as natural and attacked ones, then share all other weights, and neither spoils the
    statistics of the other (https://arxiv.org/abs/1911.09665). The network itself is left as it is.

    Args:
        network: Its normalisation layers are copied as they are now.

    Raises:
        InputError: If it has none.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
        if not layers:
            raise InputError(
                f"{type(network).__name__} has no batch normalisation to have a second set of: leave"
                " batch_norm at its default"
            )
        self._names = list(layers)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for layer in layers.values())

    def forward(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the outputs of the original network with this set of batch-norm layers."""
        own = {
            f"{name}.{key}": value
            for name, layer in zip(self._names, self.layers, strict=True)
            for key, value in [*layer.named_parameters(), *layer.named_buffers()]
        }
        return functional_call(network, own, (images,))
