"""Outputs of a network's layers, without a change to the network."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from .errors import InputError


class FeatureCapture:
    """Keeps what named layers give in one pass of a network, between :meth:`start` and :meth:`take`.

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
        self._outputs: dict[int, Any] = {}
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
            self._outputs[index] = output

    def start(self) -> None:
        """Keep the outputs of the next pass."""
        self._outputs.clear()
        self._on = True

    def take(self) -> list[Tensor]:
        """The outputs, in the order of the layers, which are forgotten here.

        Raises:
            RuntimeError: If there was no pass since :meth:`start`, or it left a layer out.
        """
        self._on = False
        outputs, self._outputs = self._outputs, {}
        missing = [name for index, name in enumerate(self.layers) if index not in outputs]
        if missing:
            raise RuntimeError(f"{self._argument}: the network did not call {', '.join(missing)} in its last pass")
        return [outputs[index] for index in range(len(self.layers))]
