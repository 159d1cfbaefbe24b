"""A second set of batch-norm layers for one network."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.errors import InputError


class SecondBatchNorm(nn.Module):
    """Copy of a network's batch-norm layers: weights, biases and running statistics.

    Two kinds of images, such as natural and attacked ones, then share all other weights and have separate batch
    statistics (https://arxiv.org/abs/1911.09665). The network itself is not changed.

    Args:
        network: The network; its batch-norm layers are copied in their current state.

    Raises:
        InputError: If it has no batch-norm layers.
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
        """Return the network's logits for the images, computed with these batch-norm layers.

        Args:
            network: The network that the layers were copied from.
            images: Shape ``(N, C, H, W)``.
        """
        own = {
            f"{name}.{key}": value
            for name, layer in zip(self._names, self.layers, strict=True)
            for key, value in [*layer.named_parameters(), *layer.named_buffers()]
        }
        return functional_call(network, own, (images,))
