"""Partition of any network into local units, found from its structure."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .trace import Call, Trace, trace


class LocalUnit(nn.Sequential):
    """Part of a network between two cuts, made of the network's layers.

    Args:
        name: Name of the layer that ends the unit with its output, as in ``network.named_modules()``.
        layers: Layers between the previous unit's output and this unit's output, by name. The network may replace a
            layer later, so code that runs later should use `layer_names`.
        inputs: Shape of the input, including the batch.
        outputs: Shape of the output, including the batch.
        cut_point: Cut point of the unit's end in the network's trace.
        obstacle: Reason why calling ``layers`` in order does not compute the unit; empty if it does.
    """

    def __init__(
        self,
        name: str,
        layers: Mapping[str, nn.Module],
        *,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        cut_point: int,
        obstacle: str = "",
    ) -> None:
        super().__init__(*layers.values())
        self.name = name
        self.layer_names = tuple(layers)
        self.inputs = inputs
        self.outputs = outputs
        self.cut_point = cut_point
        self.obstacle = obstacle

    @property
    def complete(self) -> bool:
        """Return whether calling the layers in order computes the whole unit."""
        return not self.obstacle


@dataclass(frozen=True)
class Partition:
    """A network as a chain of units, followed by a tail."""

    units: list[LocalUnit]
    tail: LocalUnit
    """From the last unit's output to the logits."""
    parameter_cut_points: dict[str, int]
    """Next cut point after the first use of each parameter, by name."""
    is_chain: bool
    """True if calling all layers of the units and the tail in order computes the network, also in training."""
    stem_in_first: bool
    """True if the first unit named by the user holds the stem and a block."""

    def module_layers(self, last_units: Sequence[int]) -> list[list[str]]:
        """Return the layer names of each module; the last module ends with the logits.

        Args:
            last_units: Index of the last unit of every module except the last.
        """
        begins, ends = [0, *(last + 1 for last in last_units)], [*(last + 1 for last in last_units), len(self.units)]
        layers = [
            [name for unit in self.units[begin:end] for name in unit.layer_names]
            for begin, end in zip(begins, ends, strict=True)
        ]
        layers[-1] += self.tail.layer_names
        return layers

    def parameter_modules(self, last_units: Sequence[int]) -> dict[str, int]:
        """Return the module index of each used parameter, by its name and by the name of its layer.

        Args:
            last_units: Index of the last unit of every module except the last.
        """
        ends = [self.units[last].cut_point for last in last_units]
        modules: dict[str, int] = {}
        for name, cut_point in self.parameter_cut_points.items():
            module, layer = sum(end < cut_point for end in ends), name.rpartition(".")[0]
            modules |= {name: module, layer: max(module, modules.get(layer, 0))}
        return modules


def local_units(
    network: nn.Module, images: Tensor | None = None, *, names: Sequence[str] | None = None
) -> list[LocalUnit]:
    """Return the units of a network, in order; the network can be cut after each unit. See :func:`partition`."""
    return partition(network, images, names=names).units


def partition(network: nn.Module, images: Tensor | None = None, *, names: Sequence[str] | None = None) -> Partition:
    """Cut a network into units: its stem, then one unit per block.

    The network is run once in evaluation mode and once in training mode. A block ends where all later layers depend
    only on its output. Layers between two blocks, such as the downsampling of a stage, belong to the second block.
    Layers after the last block belong to the tail. In a network without blocks, such as VGG, a unit is a layer with
    weights and the layers up to the next such layer.

    Args:
        network: Maps images to logits.
        images: Any images that the network accepts. None uses two images of zeros, of the size in timm's configuration
            or 32x32.
        names: Names of the layers that end the units, in order; a regular expression may match several. None finds
            them.

    Raises:
        InputError: If the network cannot be cut, or cannot be cut after one of ``names``.
    """
    if images is None:
        images = torch.zeros(2, *(getattr(network, "default_cfg", None) or {}).get("input_size", (3, 32, 32)))
    first = next(network.parameters(), None)
    if first is not None:
        images = images.to(first.device, first.dtype)
    passed = trace(network, images)
    if not passed.length:
        raise InputError(
            f"{type(network).__name__} cannot be cut into local units: its output is no tensor, or no gradient of it"
            " reaches the images, as a part is detached or computed without gradients. Let gradients pass, or freeze"
            " that part by requires_grad"
        )
    ends = _found(network, passed) if names is None else _named(network, passed, names)
    if not ends:
        raise InputError(
            f"{type(network).__name__} cannot be cut into local units: {_why_not(passed)}. Name units by hand, or"
            " choose another network"
        )
    units, cut_point, shape = [], 0, tuple(images.shape)
    known: list[str] = []
    for end in ends:
        assert end.end is not None
        assert end.outputs is not None
        layers, obstacle = _tiles(passed, cut_point, end.end, known)
        known += layers
        units.append(
            LocalUnit(
                end.name,
                {} if obstacle else layers,
                inputs=shape,
                outputs=end.outputs,
                cut_point=end.end,
                obstacle=obstacle,
            )
        )
        cut_point, shape = end.end, end.outputs
    rest, obstacle = _tiles(passed, cut_point, passed.length, known)
    tail = LocalUnit("", rest, inputs=shape, outputs=(), cut_point=passed.length, obstacle=obstacle)
    layers = [name for unit in (*units, tail) for name in unit.layer_names]
    is_chain = all(unit.complete for unit in (*units, tail))
    is_chain = is_chain and trace(network, images, training=True).is_chain(layers)
    stem_in_first = names is not None and _is_composite(ends[0].module) and _has_weights_before(passed, ends[0])
    return Partition(units, tail, passed.parameter_cut_points, is_chain, stem_in_first)


# -- finding units -----------------------------------------------------------------------------------------------------


def _can_end(call: Call, passed: Trace) -> bool:
    """Return whether the network can be cut after a layer."""
    return call.end is not None and call.times == 1 and call.end not in passed.shared and call.end > 0


def _found(network: nn.Module, passed: Trace) -> list[Call]:
    """Return the layers that end units."""
    search = _Search(passed, _solid_classes(network, passed))
    search.pieces(network, "")  # once to see which classes hold blocks
    blocks, before = search.blocks(network)
    if len(blocks) < 2:
        search.leaves = True
        blocks, before = search.blocks(network)
    if len(blocks) < 2:
        return []
    # Weights before the first block form a separate unit, the stem, which ends as late as possible.
    ends = {call.end: call for call in blocks}
    if any(True for call in before for _ in call.module.parameters()):
        stem = max(before, key=lambda call: call.order)
        ends = {stem.end: stem, **ends}
    return list(ends.values())


class _Search:
    """Search for the blocks of a network.

    Args:
        passed: The network's trace.
        solid: Classes of blocks that are never split.
    """

    def __init__(self, passed: Trace, solid: set[type]) -> None:
        self.passed = passed
        self.solid = solid
        self.leaves = False
        self.holders: set[type] = set()

    def blocks(self, network: nn.Module) -> tuple[list[Call], list[Call]]:
        """Return the layers that end blocks, and the layers before the first block, in order."""
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
        """Return the layers of a module that can end a unit, each with True if it is a block."""
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
        # A list, or a container whose layers the network calls itself.
        listed = isinstance(module, nn.Sequential) or (name and name not in self.passed.calls)
        kinds = Counter(type(call.module) for call in direct)
        for call in direct:
            several = kinds[type(call.module)] > 1
            if _is_composite(call.module):
                # A single layer next to a list of blocks belongs to the next block, e.g. a downsampling.
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
    """Return the classes of blocks. If one block has a shortcut past its layers, no block of its class is split."""
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
    """Return, for each layer with weights, the last of the weightless layers that follow it."""
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
    """Return the layers named by the user."""
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


def _has_weights_before(passed: Trace, end: Call) -> bool:
    first = min(
        (cut_point for name, cut_point in passed.parameter_cut_points.items() if name.startswith(f"{end.name}.")),
        default=0,
    )
    return any(cut_point < first for cut_point in passed.parameter_cut_points.values())


def _tiles(passed: Trace, start: int, end: int, known: list[str]) -> tuple[dict[str, nn.Module], str]:
    """Return the largest layers between two cut points, and the reason if they do not compute all of it, or "".

    Args:
        passed: The network's trace.
        start: The first cut point.
        end: The last cut point.
        known: Names of the layers before the first cut point.
    """
    layers: dict[str, nn.Module] = {}
    extra: Call | None = None
    while start != end:
        starting = [
            call
            for call in passed.calls.values()
            if call.start == start and call.end is not None and start < call.end <= end and call.times == 1
        ]
        fitting = [call for call in starting if not call.extras]
        # Some of its inner layers may fit.
        extra = extra or next((call for call in starting if call.extras), None)
        largest = max(fitting, key=lambda call: (call.end or 0, call.order), default=None)
        layers |= _without_effect(passed, start, [*known, *layers, *([largest.name] if largest else [])])
        if largest is None:
            if extra is not None:
                return layers, f"{extra.name} takes {' and '.join(extra.extras)} besides the features"
            return layers, "the network computes something between its layers"
        layers[largest.name] = largest.module
        start = largest.end or 0
    if end == passed.length:
        layers |= _without_effect(passed, end, [*known, *layers])
    return layers, ""


def _without_effect(passed: Trace, cut_point: int, tiles: list[str]) -> dict[str, nn.Module]:
    """Return the layers at a cut point that do nothing in evaluation mode, such as dropout, outside other layers."""
    found: dict[str, nn.Module] = {}
    calls = [call for call in passed.calls.values() if call.start == call.end == cut_point and call.times == 1]
    # An outer layer ends after its inner ones.
    for call in sorted(calls, key=lambda call: call.order, reverse=True):
        inside = any(call.name.startswith(f"{outer}.") for outer in (*tiles, *found))
        if not inside and not call.extras and not isinstance(call.module, nn.Identity):
            found[call.name] = call.module
    return dict(reversed(found.items()))
