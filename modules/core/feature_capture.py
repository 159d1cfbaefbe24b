"""Outputs of a network's layers, without a change to the network."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError
from .feature_maps import channels_are_last

INPUT = ":input"
"""After the name of a layer: its first input is kept instead of its output."""


class FeatureCapture:
    """Keeps what named layers give in one pass of a network, between :meth:`start` and the next.

    The layers are found once, in the plain network, and carry the hooks with them, so it does not matter whether the
    network is later compiled or wrapped, e.g. by DDP. While off, the hooks do nothing.

    Args:
        network: Any network.
        layers: Names of layers, as in ``network.named_modules()``. ``NAME:input`` is the layer's input, e.g. the
            features before a ReLU. Of a layer that gives a tuple the first entry counts.
        argument: Name of the argument that ``layers`` came from, for the error.

    Raises:
        InputError: If the network has no such layer.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], *, argument: str = "layers") -> None:
        self.layers = tuple(layers)
        self._argument = argument
        self._on = False
        self._outputs: dict[int, tuple[Any, int | None]] = {}
        self._prefix_tokens: int | None = getattr(network, "num_prefix_tokens", None)  # as timm's transformers say
        self._format = str(getattr(network, "output_fmt", ""))
        modules = dict(network.named_modules())
        for index, layer in enumerate(self.layers):
            name = layer.removesuffix(INPUT)
            if name not in modules or not name:
                near = difflib.get_close_matches(name, modules, 3) or list(modules)[1:6]
                raise InputError(
                    f"{argument}: {type(network).__name__} has no layer {name!r}; it has {', '.join(near)}, …"
                )
            if layer.endswith(INPUT):
                modules[name].register_forward_pre_hook(partial(self._keep_input, index))
            else:
                modules[name].register_forward_hook(partial(self._keep, index))

    def _keep_input(self, index: int, module: nn.Module, inputs: Any) -> None:
        if self._on and inputs:
            # A layer that works in place would leave its output there.
            value = inputs[0].clone() if getattr(module, "inplace", False) else inputs[0]
            self._keep(index, module, None, value)

    def _keep(self, index: int, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._on:
            if isinstance(output, (tuple, list)) and output:
                output = output[0]
            version = None
            if isinstance(output, Tensor) and not torch.compiler.is_compiling() and not output.is_inference():
                version = output._version
            self._outputs[index] = output, version

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

    def maps(self) -> list[Tensor]:
        """As :meth:`take`, with all that belongs to places of an image as maps ``(N, C, h, w)``.

        Tokens ``(N, L, C)`` become a square map. Class and register tokens in front of the square are left out: as many
        as the network's ``num_prefix_tokens``, or else as many as are left over. Maps ``(N, h, w, C)`` are turned.

        Raises:
            InputError: As :meth:`take`, or if a layer gives no tensor, or tokens that are no square.
        """
        return [self._as_map(name, output) for name, output in zip(self.layers, self.take(), strict=True)]

    def _as_map(self, name: str, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise InputError(
                f"{self._argument}: {name} gives {type(output).__name__} and no tensor, name another layer"
            )
        if output.ndim == 4 and channels_are_last(tuple(output.shape), self._format):
            return output.permute(0, 3, 1, 2)
        if output.ndim != 3:
            return output
        tokens = output.shape[1]
        # Some layers, such as the patch embedding, come before the class token.
        known = [self._prefix_tokens, 0] if self._prefix_tokens is not None else [tokens - math.isqrt(tokens) ** 2]
        for in_front in known:
            side = math.isqrt(max(tokens - in_front, 0))
            if side and side**2 == tokens - in_front:
                return output[:, in_front:].transpose(1, 2).unflatten(2, (side, side))
        raise InputError(
            f"{self._argument}: {name} gives {tokens} tokens, which are no square map with or without"
            f" {self._prefix_tokens} in front: name another layer"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Copies of a module are made in the middle of runs, and a part of a graph cannot be copied.
        return {**self.__dict__, "_outputs": {}, "_on": False}
