"""Averages of gradients over processes, computed in the background."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


class GradientReduction:
    """Replacement of gradients by their means over all processes, with one all-reduce per dtype for each :meth:`start`.

    It is for parts of a model that run their backward pass before the model's main one. DDP cannot handle these.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[dist.Work, Tensor, list[Tensor]]] = []

    def start(self, parameters: Iterable[nn.Parameter]) -> None:
        """Start to average the gradients of these parameters; all processes must call this in the same order."""
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
        """Wait for all started averages and write them to the gradients."""
        for work, message, gradients in self._pending:
            work.wait()
            for gradient, mean in zip(gradients, _unflatten_dense_tensors(message, gradients), strict=True):
                gradient.copy_(mean)
        self._pending.clear()
