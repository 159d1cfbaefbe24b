"""Find the layers whose output is the only thing that later layers use, by tracing one forward pass."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..core.evaluation_mode import evaluation_mode


@dataclass
class Call:
    """Call of one layer during the traced pass."""

    name: str
    module: nn.Module
    times: int = 1
    """Number of calls; the other fields describe the first call."""
    order: int = -1
    """Position among all layers, in the order in which they finished."""
    start: int | None = None
    """Cut point of its first argument; None if the argument is no cut point."""
    end: int | None = None
    """Cut point of its output; None if later layers also use earlier tensors."""
    extras: tuple[str, ...] = ()
    """Names of its arguments after the first with values other than their defaults."""
    outputs: tuple[int, ...] | None = None
    """Shape of its output; None if the output is not one tensor."""
    _nodes: list[Any] = field(default_factory=lambda: [None, None], repr=False)


@dataclass
class Trace:
    """Structure of a network, from one forward pass.

    A *cut point* is a tensor on all paths from the images to the output; number 0 is the images. All later tensors can
    be computed from a cut point alone.
    """

    calls: dict[str, Call]
    length: int
    """Number of the output's cut point."""
    shared: set[int]
    """Cut points where a tensor with gradient, such as a tied weight, is used on both sides."""
    parameter_cut_points: dict[str, int]
    """Next cut point after the first use of each parameter that the output depends on."""

    def is_chain(self, names: list[str]) -> bool:
        """Return whether the network only calls these layers in order, each on the previous layer's output."""
        cut_point = 0
        for name in names:
            call = self.calls.get(name)
            if call is None or call.times > 1 or call.extras or call.start != cut_point or call.end is None:
                return False
            cut_point = call.end
        return cut_point == self.length > 0


def trace(network: nn.Module, images: Tensor, *, training: bool = False) -> Trace:
    """Run a network once and read its structure from autograd's graph.

    Weights, buffers, modes and random states are restored.

    Args:
        network: Maps images to a tensor.
        images: Shape ``(N, C, H, W)``, on the network's device, also on ``meta``.
        training: True runs the pass in training mode, with dropout and similar layers.
    """
    calls: dict[str, Call] = {}
    handles, done = [], 0

    def before(name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if name in calls:
            calls[name].times += 1
            return
        calls[name] = Call(name, module)
        calls[name].extras = _extras(module, args, kwargs)
        if args and isinstance(args[0], Tensor):
            # Read now, because the layer may change its input in place.
            calls[name]._nodes[0] = args[0].grad_fn

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
        with _unchanged(network, images.device), torch.enable_grad():
            network.train(training)
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
    cut_points = _cut_points(order, source.grad_fn)
    if not cut_points:
        return Trace(calls, 0, set(), {})
    uses = _uses(order, cut_points)
    for call in calls.values():
        call.start, call.end = (cut_points.get(node) for node in call._nodes)
        call._nodes = [None, None]
    shared = {cut_point for first, last in uses.values() for cut_point in range(first, last)}
    leaves = {id(node.variable): uses[node] for node in order if hasattr(node, "variable") and node in uses}
    parameters = {name: leaves[id(p)][0] for name, p in network.named_parameters() if id(p) in leaves}
    return Trace(calls, len(cut_points) - 1, shared, parameters)


@contextlib.contextmanager
def _unchanged(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore all that a pass in training mode changes: modes, buffers and the random state."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    with evaluation_mode(network), torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def _extras(module: nn.Module, args: tuple, kwargs: dict) -> tuple[str, ...]:
    """Return the names of the arguments after the first with values other than their defaults."""
    try:
        signature = inspect.signature(module.forward)
        given = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return tuple(kwargs) or ("a second argument",) * (len(args) > 1)
    extras = []
    for place, (name, value) in enumerate(given.items()):
        parameter = signature.parameters[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            value, default = value[not place :], ()
        else:
            default = {} if parameter.kind is parameter.VAR_KEYWORD else parameter.default
            if not place and parameter.kind is not parameter.VAR_KEYWORD:
                continue
        plain = isinstance(value, (bool, int, float, str, tuple, dict))
        if value is not default and not (plain and type(value) is type(default) and value == default):
            extras.append(name)
    return tuple(extras)


def _inputs(node: Any) -> list[Any]:
    return [before for before, _ in node.next_functions if before is not None]


def _from_output(output: Any) -> list[Any]:
    """Return all nodes of the graph, each before its inputs."""
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


def _cut_points(order: list[Any], source: Any) -> dict[Any, int]:
    """Number the nodes on every path from ``source`` to the output, starting at ``source``.

    A node is on every path if the number of paths through it equals the total number of paths.
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
    return {node: cut_point for cut_point, node in enumerate(reversed(chain))}


def _uses(order: list[Any], cut_points: dict[Any, int]) -> dict[Any, tuple[int, int]]:
    """Return the first and the last cut point after each node that is no cut point."""
    uses: dict[Any, tuple[int, int]] = {}
    for node in order:
        first = last = cut_points.get(node)
        if first is None or last is None:
            first, last = uses[node]
        for before in _inputs(node):
            if before not in cut_points:
                low, high = uses.get(before, (first, last))
                uses[before] = min(low, first), max(high, last)
    return uses
