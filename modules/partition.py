"""Cuts any network into local units, found from its structure."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import InputError
from .network_trace import Call, Trace, trace


class LocalUnit(nn.Sequential):
    """A piece of a network between two cuts: the network's own layers, not copies of them.

    Args:
        name: Name of the layer whose output ends the unit, as in ``network.named_modules()``.
        layers: The layers from the unit before to this unit's output, by their names. The network may replace a layer
            later, so what outlives the cutting keeps `layer_names`.
        inputs: Shape of its input, batch included.
        outputs: Shape of its output, batch included.
        station: Where it ends in the network's trace.
        complete: Whether ``layers`` are all there is to it; False if the network computes something between them.
    """

    def __init__(
        self,
        name: str,
        layers: Mapping[str, nn.Module],
        *,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        station: int,
        complete: bool,
    ) -> None:
        super().__init__(*layers.values())
        self.name = name
        self.layer_names = tuple(layers)
        self.inputs = inputs
        self.outputs = outputs
        self.station = station
        self.complete = complete


@dataclass(frozen=True)
class Partition:
    """A network as a chain of units and what follows the last of them."""

    units: list[LocalUnit]
    tail: LocalUnit
    """From the last unit's output to the logits."""
    parameter_stations: dict[str, int]
    """The station that each parameter is first used before."""


def local_units(
    network: nn.Module, images: Tensor | None = None, *, names: Sequence[str] | None = None
) -> list[LocalUnit]:
    """The ordered units of a network, after each of which it can be cut; see :func:`partition`."""
    return partition(network, images, names=names).units


def partition(network: nn.Module, images: Tensor | None = None, *, names: Sequence[str] | None = None) -> Partition:
    """Cut a network into units: its stem, then one for each block.

    The network is run once, in evaluation mode. A block ends where everything behind it depends on its output alone.
    What lies between two blocks, such as the down-sampling of a stage, belongs to the second; what lies behind the
    last, to the tail. In a network without blocks, such as VGG, a unit is a layer with weights and what is between
    it and the next.

    Args:
        network: Maps images to logits.
        images: Any images that the network takes; None is two empty ones of the size that timm knows, or 32x32.
        names: Units by the names of the layers that end them, in order; each may be a regular expression for several.
            None finds them.

    Raises:
        InputError: If the network cannot be cut, or not after one of ``names``.
    """
    if images is None:
        images = torch.zeros(2, *(getattr(network, "default_cfg", None) or {}).get("input_size", (3, 32, 32)))
    first = next(network.parameters(), None)
    if first is not None:
        images = images.to(first.device, first.dtype)
    passed = trace(network, images)
    ends = _found(network, passed) if names is None else _named(network, passed, names)
    if not ends:
        raise InputError(
            f"{type(network).__name__} cannot be cut into local units: {_why_not(passed)}. Name units by hand, or"
            " choose another network"
        )
    units, station, shape = [], 0, tuple(images.shape)
    for end in ends:
        assert end.end is not None
        assert end.outputs is not None
        layers = _tiles(passed, station, end.end)
        units.append(
            LocalUnit(
                end.name,
                layers or {},
                inputs=shape,
                outputs=end.outputs,
                station=end.end,
                complete=layers is not None,
            )
        )
        station, shape = end.end, end.outputs
    rest = _tiles(passed, station, passed.length)
    tail = LocalUnit(
        "",
        rest if rest is not None else _tiles(passed, station, passed.length, as_far_as_possible=True) or {},
        inputs=shape,
        outputs=(),
        station=passed.length,
        complete=rest is not None,
    )
    return Partition(units, tail, passed.parameter_stations)


# -- finding units -----------------------------------------------------------------------------------------------------


def _can_end(call: Call, passed: Trace) -> bool:
    """Whether the network can be cut after a layer."""
    return call.end is not None and call.times == 1 and call.end not in passed.shared and call.end > 0


def _found(network: nn.Module, passed: Trace) -> list[Call]:
    """The layers that end units."""
    search = _Search(passed, _solid_classes(network, passed))
    search.pieces(network, "")  # once to see which classes hold blocks
    blocks, before = search.blocks(network)
    if len(blocks) < 2:
        search.leaves = True
        blocks, before = search.blocks(network)
    if len(blocks) < 2:
        return []
    # Weights before the first block are a unit of their own, the stem, which ends as late as it can.
    ends = {call.end: call for call in blocks}
    if any(True for call in before for _ in call.module.parameters()):
        stem = max(before, key=lambda call: call.order)
        ends = {stem.end: stem, **ends}
    return list(ends.values())


class _Search:
    """Looks for the blocks of a network.

    Args:
        passed: The network's trace.
        solid: Classes that are not looked into.
    """

    def __init__(self, passed: Trace, solid: set[type]) -> None:
        self.passed = passed
        self.solid = solid
        self.leaves = False
        self.holders: set[type] = set()

    def blocks(self, network: nn.Module) -> tuple[list[Call], list[Call]]:
        """The layers that end blocks, and those before the first block, in order."""
        pieces = sorted(self.pieces(network, ""), key=lambda piece: piece[0].order)
        blocks = [call for call, is_block in pieces if is_block and call.end != self.passed.length]
        if not blocks:
            return [], []
        if self.leaves:
            parents = Counter(call.name.rpartition(".")[0] for call in blocks)
            chosen = parents.most_common(1)[0][0]
            blocks = [call for call in blocks if call.name.rpartition(".")[0] == chosen]
        before = [call for call, _ in pieces if call.order < blocks[0].order and call.end != blocks[0].end]
        if self.leaves:
            blocks = _with_followers(blocks, [call for call, _ in pieces], self.passed)
        return blocks, before

    def pieces(self, module: nn.Module, name: str) -> list[tuple[Call, bool]]:
        """The layers that a module is a chain of, as far as they can end a unit, and whether each is a block."""
        found: list[tuple[Call, bool]] = []
        direct: list[Call] = []
        split = False
        for child_name, child in module.named_children():
            child_name = f"{name}.{child_name}" if name else child_name
            call = self.passed.calls.get(child_name)
            if call is not None and not _can_end(call, self.passed):
                continue
            inside = [] if type(child) in self.solid else self.pieces(child, child_name)
            if any(is_block for _, is_block in inside):
                found += inside
                split = True
            elif call is not None:
                direct.append(call)
        # A list, or something that the network goes through by hand.
        listed = isinstance(module, nn.Sequential) or (name and name not in self.passed.calls)
        kinds = Counter(type(call.module) for call in direct)
        for call in direct:
            several = kinds[type(call.module)] > 1
            if _is_composite(call.module):
                # Beside a list of blocks a single layer is what leads to them, e.g. a down-sampling.
                is_block = bool(listed) or ((several or type(module) in self.holders) and not split)
            else:
                is_block = self.leaves and isinstance(call.module, _WEIGHTED) and several
            found.append((call, is_block))
        if name and any(is_block for _, is_block in found):
            self.holders.add(type(module))
        return found


def _is_composite(module: nn.Module) -> bool:
    return any(True for child in module.children() for _ in child.parameters())


_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def _solid_classes(network: nn.Module, passed: Trace) -> set[type]:
    """Classes of blocks: one with a shortcut past its layers makes all of its class one piece."""
    solid: set[type] = set()
    for name, module in network.named_modules():
        call = passed.calls.get(name)
        if call is None or not _can_end(call, passed) or isinstance(module, nn.Sequential):
            continue
        children = [passed.calls.get(f"{name}.{child}") for child, _ in module.named_children()]
        if any(
            inner is not None and inner.end is None and any(True for _ in inner.module.parameters())
            for inner in children
        ):
            solid.add(type(module))
    return solid


def _with_followers(starts: list[Call], pieces: list[Call], passed: Trace) -> list[Call]:
    """The last of the layers without weights of their own that follow each layer with weights."""
    ends = []
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        end = start
        for call in pieces:
            if call.order <= start.order:
                continue
            if (following and call.order >= following.order) or call.end == passed.length:
                break
            if isinstance(call.module, _WEIGHTED) or _is_composite(call.module):
                break
            end = call
        ends.append(end)
    return ends


def _named(network: nn.Module, passed: Trace, names: Sequence[str]) -> list[Call]:
    """The layers of the user's choice."""
    chosen: list[Call] = []
    modules = dict(network.named_modules())
    names = [names] if isinstance(names, str) else names
    for name in names:
        try:
            pattern = re.compile(name)
        except (re.error, TypeError) as error:
            raise InputError(f"units: {name!r} is neither a name nor a regular expression: {error}") from error
        matches = [known for known in modules if known and pattern.fullmatch(known)]
        if not matches:
            near = difflib.get_close_matches(name, modules, 3) or [known for known in modules if known][:5]
            raise InputError(f"units: {type(network).__name__} has no layer {name!r}; it has {', '.join(near)}, …")
        for match in matches:
            call = passed.calls.get(match)
            if call is None:
                raise InputError(f"units: the network does not call {match}: name another layer")
            if not _can_end(call, passed):
                raise InputError(f"units: the network cannot be cut after {match}: {_reason(call, passed)}")
            if chosen and (call.end or 0) <= (chosen[-1].end or 0):
                raise InputError(f"units: {match} does not come after {chosen[-1].name}: name layers in their order")
            chosen.append(call)
    inner = [call for call in chosen if call.end != passed.length]
    if not inner:
        raise InputError(f"units {list(names)} end no unit before the logits: name the layers that do, or leave it out")
    return inner


def _reason(call: Call, passed: Trace) -> str:
    if call.times > 1:
        return f"it is called {call.times} times"
    if call.outputs is None:
        return "it does not give one tensor"
    if call.end in passed.shared:
        return "what lies behind shares weights with what lies before it"
    return "what lies behind it also uses earlier features"


def _why_not(passed: Trace) -> str:
    composite = [call for call in passed.calls.values() if _is_composite(call.module) and call.end != passed.length]
    refused = [call for call in composite if not _can_end(call, passed)]
    if not refused:
        return "it has no two layers in a row that could be trained apart"
    call = refused[len(refused) // 2]
    return f"after {call.name}, for one, {_reason(call, passed)}"


def _tiles(passed: Trace, start: int, end: int, *, as_far_as_possible: bool = False) -> dict[str, nn.Module] | None:
    """Return the largest layers that together lead from one station to another, or None if there are no such."""
    layers: dict[str, nn.Module] = {}
    while start != end:
        fitting = [
            call
            for call in passed.calls.values()
            if call.start == start and call.end is not None and start < call.end <= end and call.times == 1
        ]
        if not fitting:
            return layers if as_far_as_possible else None
        largest = max(fitting, key=lambda call: (call.end or 0, call.order))
        layers[largest.name] = largest.module
        start = largest.end or 0
    return layers
