"""Outputs of a network's layers, without a change to the network."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError


class FeatureCapture:
    """Keeps what named layers give in one pass of a network, between :meth:`start` and the next.

    The layers are found once, in the plain network, and carry the hooks with them, so it does not matter whether the
    network is later compiled or wrapped, e.g. by DDP. While off, the hooks do nothing.

    Args:
        network: Any network.
        layers: Names of layers, as in ``network.named_modules()``.
        argument: Name of the argument that ``layers`` came from, for the error.

    Raises:
        InputError: If the network has no such layer.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], *, argument: str = "layers") -> None:
        self.layers = tuple(layers)
        self._argument = argument
        self._on = False
        self._outputs: dict[int, tuple[Any, int | None]] = {}
        modules = dict(network.named_modules())
        for index, name in enumerate(self.layers):
            if name not in modules or not name:
                near = difflib.get_close_matches(name, modules, 3) or list(modules)[1:6]
                raise InputError(
                    f"{argument}: {type(network).__name__} has no layer {name!r}; it has {', '.join(near)}, …"
                )
            modules[name].register_forward_hook(partial(self._keep, index))

    def _keep(self, index: int, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._on:
            tracked = not torch.compiler.is_compiling() and isinstance(output, Tensor) and not output.is_inference()
            self._outputs[index] = output, output._version if tracked else None

    def start(self) -> None:
        """Forget the last pass and keep the outputs of the next."""
        self._outputs.clear()
        self._on = True

    def forget(self) -> None:
        """Let go of the outputs that were kept."""
        self._outputs.clear()

    def take(self) -> list[Tensor]:
        """The outputs of the pass since :meth:`start`, in the order of the layers; as often as they are wanted.

        Raises:
            InputError: If the pass left a layer out, or the layer behind one has changed its output in place.
        """
        self._on = False
        for index, name in enumerate(self.layers):
            if index not in self._outputs:
                raise InputError(f"{self._argument}: the network does not call {name}, name another layer")
            output, version = self._outputs[index]
            if version is not None and output._version != version:
                raise InputError(
                    f"{self._argument}: what {name} gives is changed in place by the layer behind it, name that one"
                )
        return [self._outputs[index][0] for index in range(len(self.layers))]

    def __getstate__(self) -> dict[str, Any]:
        # Copies of a module are made in the middle of runs, and a part of a graph cannot be copied.
        return {**self.__dict__, "_outputs": {}, "_on": False}
