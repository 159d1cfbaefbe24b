"""Which outputs of a network's layers everything behind them depends on alone, read off one pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .evaluation_mode import evaluation_mode


@dataclass
class Call:
    """What one layer did in the pass."""

    name: str
    module: nn.Module
    times: int = 1
    """How often it was called; only the first call is described."""
    order: int = -1
    """Place among all layers, by when they were done."""
    start: int | None = None
    """Station that its input is, None if its input is none."""
    end: int | None = None
    """Station that its output is, None if the network goes past it."""
    inputs: tuple[int, ...] | None = None
    """Shape of its input, None if that is not one tensor."""
    outputs: tuple[int, ...] | None = None
    """Shape of its output, None if that is not one tensor."""
    _nodes: list[Any] = field(default_factory=lambda: [None, None], repr=False)


@dataclass
class Trace:
    """A pass of a network.

    A *station* is a tensor that all paths from the images to the output lead through; 0 is the images. Everything
    behind a station can be computed from it without a look at what lies before.
    """

    calls: dict[str, Call]
    length: int
    """The output's station."""
    shared: set[int]
    """Stations with something on both sides of them that gradients flow to, such as a tied weight."""
    parameter_stations: dict[str, int]
    """The station behind the first use of each parameter that the output depends on."""


def trace(network: nn.Module, images: Tensor) -> Trace:
    """Run a network once, in evaluation mode, and read its structure off the graph that autograd builds.

    Args:
        network: Maps images to a tensor.
        images: Shape ``(N, C, H, W)``, on the network's device, which may be ``meta``.
    """
    calls: dict[str, Call] = {}
    handles, done = [], 0

    def before(name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if name in calls:
            calls[name].times += 1
            return
        calls[name] = Call(name, module)
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if len(tensors) == 1 and args and tensors[0] is args[0]:
            # Asked for now, as the layer may change its input in place.
            calls[name]._nodes[0] = tensors[0].grad_fn
            calls[name].inputs = tuple(tensors[0].shape)

    def after(name: str, output: Any) -> None:
        nonlocal done
        call = calls[name]
        if call.order < 0:
            call.order, done = done, done + 1
            if isinstance(output, Tensor):
                call._nodes[1], call.outputs = output.grad_fn, tuple(output.shape)

    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    for name, module in network.named_modules():
        if name:
            pre = lambda module, args, kwargs, name=name: before(name, module, args, kwargs)  # noqa: E731
            handles.append(module.register_forward_pre_hook(pre, with_kwargs=True))
            handles.append(module.register_forward_hook(lambda module, args, output, name=name: after(name, output)))
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with evaluation_mode(network), torch.enable_grad():
            source = images.detach().requires_grad_().clone()
            output = network(source)
    finally:
        for handle in handles:
            handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(False)
    if not isinstance(output, Tensor) or output.grad_fn is None:
        return Trace(calls, 0, set(), {})
    order = _from_output(output.grad_fn)
    stations = _stations(order, source.grad_fn)
    uses = _uses(order, stations)
    for call in calls.values():
        call.start, call.end = (stations.get(node) for node in call._nodes)
        call._nodes = [None, None]
    shared = {station for first, last in uses.values() for station in range(first, last)}
    leaves = {id(node.variable): uses[node] for node in order if hasattr(node, "variable") and node in uses}
    parameters = {name: leaves[id(p)][0] for name, p in network.named_parameters() if id(p) in leaves}
    return Trace(calls, len(stations) - 1, shared, parameters)


def _inputs(node: Any) -> list[Any]:
    return [before for before, _ in node.next_functions if before is not None]


def _from_output(output: Any) -> list[Any]:
    """All nodes of the graph, each before those it was computed from."""
    seen, done = {output}, []
    stack = [(output, iter(_inputs(output)))]
    while stack:
        node, rest = stack[-1]
        for before in rest:
            if before not in seen:
                seen.add(before)
                stack.append((before, iter(_inputs(before))))
                break
        else:
            done.append(node)
            stack.pop()
    return done[::-1]


def _stations(order: list[Any], source: Any) -> dict[Any, int]:
    """The nodes on every path from ``source`` to the output, numbered from ``source`` on.

    They are those that as many paths lead through as there are at all.
    """
    to_source = {}
    for node in reversed(order):
        to_source[node] = 1 if node is source else sum(to_source[before] for before in _inputs(node))
    from_output = dict.fromkeys(order, 0)
    from_output[order[0]] = 1
    for node in order:
        for before in _inputs(node):
            from_output[before] += from_output[node]
    total = to_source[order[0]]
    chain = [node for node in order if total and from_output[node] * to_source[node] == total]
    return {node: station for station, node in enumerate(reversed(chain))}


def _uses(order: list[Any], stations: dict[Any, int]) -> dict[Any, tuple[int, int]]:
    """The first and the last station that each node which is none itself leads to."""
    uses: dict[Any, tuple[int, int]] = {}
    for node in order:
        first = last = stations.get(node)
        if first is None or last is None:
            first, last = uses[node]
        for before in _inputs(node):
            if before not in stations:
                low, high = uses.get(before, (first, last))
                uses[before] = min(low, first), max(high, last)
    return uses
