"""Means of gradients over processes, taken in the background while the step goes on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


class GradientReduction:
    """Replaces gradients by their means over all processes, one message for each call of :meth:`start`.

    For parts of a model whose backward pass comes before the model's own, which DDP cannot follow.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[dist.Work, Tensor, list[Tensor]]] = []

    def start(self, parameters: Iterable[nn.Parameter]) -> None:
        """Begin with the gradients of these parameters; all processes must do so in one order."""
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                kinds.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in kinds.values():
            message = _flatten_dense_tensors(gradients).div_(dist.get_world_size())
            work = dist.all_reduce(message, async_op=True)
            assert work is not None
            self._pending.append((work, message, gradients))

    def finish(self) -> None:
        """Wait for what was begun and put it in place."""
        for work, message, gradients in self._pending:
            work.wait()
            for gradient, mean in zip(gradients, _unflatten_dense_tensors(message, gradients), strict=True):
                gradient.copy_(mean)
        self._pending.clear()
