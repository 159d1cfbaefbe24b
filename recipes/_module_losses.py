"""One gradient-isolated module as a function: its layers, its head and the objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from types import FunctionType
from typing import Any, NamedTuple

import torch
import torch._functorch.config as functorch
from torch import Tensor, nn

from ..modules.auxiliary import LocalBatch, LocalHead


class ModuleBatch(NamedTuple):
    """A batch, as shared by all modules."""

    objective: Any
    labels: Tensor
    context: Any
    images: Tensor
    mean: Tensor
    std: Tensor

    def local(self, inputs: Tensor) -> LocalBatch:
        """Return the batch for the head of the module with these inputs."""
        classify = partial(self.objective, labels=self.labels, context=self.context)
        return LocalBatch(classify, self.labels, self.images, lambda: self.images * self.std + self.mean, inputs)


def call(layers: Sequence[nn.Module], inputs: Tensor) -> Tensor:
    """Return the output of layers called one after the other."""
    for layer in layers:
        inputs = layer(inputs)
    return inputs


def module_losses(
    layers: Sequence[nn.Module], head: LocalHead, inputs: Tensor, batch: ModuleBatch
) -> tuple[Tensor, Tensor]:
    """Return the features of a module and its head's losses ``(N,)``."""
    features = call(layers, kept_input(head, inputs))
    return features, head(features, batch.local(inputs))


def kept_input(head: LocalHead, inputs: Tensor) -> Tensor:
    """Return the module's input, as a copy if the head reads it: a layer may change it in place."""
    return inputs.clone() if any(getattr(part, "reads_inputs", False) for part in head.modules()) else inputs


@cache
def compiled(function: Callable[..., Any], index: int) -> Callable[..., Any]:
    """Return a function compiled for one module.

    Each module gets a copy of the code. With shared code, torch limits the number of compilations, and it makes sizes
    dynamic that differ between modules, with slower kernels.

    Args:
        function: `module_losses` or `call`.
        index: The module, from 0.
    """
    code = function.__code__.replace(co_name=f"{function.__name__}_{index}")
    run = torch.compile(FunctionType(code, function.__globals__, code.co_name, function.__defaults__))

    def recomputing(*inputs: Any) -> Any:
        # The backward kernels recompute activations and masks from the saved inputs of convolutions. Otherwise a
        # compiled module would save more tensors than an uncompiled one, without being faster.
        with functorch.patch(aggressive_recomputation=True):
            return run(*inputs)

    return recomputing
