"""Outputs of a network's layers, captured without a change to the network."""

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
"""Suffix of a layer name: capture the layer's first input instead of its output."""


class FeatureCapture:
    """Hooks that keep the outputs of named layers during one forward pass, from :meth:`start` to the next one.

    The hooks are registered once, on the layers of the plain network. They keep working when the network is compiled or
    wrapped, e.g. by DDP. Before :meth:`start` and after :meth:`take` they do nothing.

    Args:
        network: Any network.
        layers: Names of layers, as in ``network.named_modules()``. ``NAME:input`` is the layer's input, e.g. the
            features before a ReLU. If a layer returns a tuple, its first entry is used.
        argument: Name of the argument that ``layers`` came from, for the error.

    Raises:
        InputError: If the network has no such layer.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], *, argument: str = "layers") -> None:
        self.layers = tuple(layers)
        self._argument = argument
        self._on = False
        self._outputs: dict[int, tuple[Any, int | None]] = {}
        self._prefix_tokens: int | None = getattr(network, "num_prefix_tokens", None)  # set by timm's transformers
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
            # An in-place layer would overwrite its input.
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
        """Discard the last pass and capture the next one."""
        self._outputs.clear()
        self._on = True

    def forget(self) -> None:
        """Discard the captured outputs."""
        self._outputs.clear()

    def take(self) -> list[Tensor]:
        """Return the outputs captured since :meth:`start`, in the order of ``layers``. Repeated calls return the same.

        Raises:
            InputError: If the pass did not call a layer, or a later layer changed the output in place.
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
        """Return the outputs like :meth:`take`, with all spatial features as maps ``(N, C, h, w)``.

        Tokens ``(N, L, C)`` become a square map. Class and register tokens in front of the square are dropped: the
        first ``num_prefix_tokens`` if the network has that attribute, otherwise all tokens beyond the largest square.
        Maps ``(N, h, w, C)`` are permuted. Other shapes stay.

        Raises:
            InputError: As in :meth:`take`, or if an output is no tensor or its tokens do not form a square.
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
        # Modules are copied during runs, and tensors within an autograd graph cannot be copied.
        return {**self.__dict__, "_outputs": {}, "_on": False}
