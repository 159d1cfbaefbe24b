"""AugLocal: train each module with a small network built like the layers that follow it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn

from ..core.checks import at_least, check
from ..networks._blocks import BasicBlock, he_initialization
from ..partition.cuts import LocalUnit
from ._base import Auxiliary, Cut, LocalBatch, LocalHead
from ._copies import Adapter, Readout, check_copied, fresh_copy


def auglocal_units(unit: int, units: int, depth: int) -> list[int]:
    """Return the indices of the later units that a head imitates: evenly spread, always including the last unit.

    Args:
        unit: Index of the unit that the head follows, from 0.
        units: Number of units of the network.
        depth: Number of units of the head; if fewer units are left, all of them are used.
    """
    left = units - 1 - unit
    if depth >= left:
        return list(range(unit + 1, units))
    # Python rounds halves to even, as does the released code.
    return [round(unit + left / depth * step) for step in range(1, depth + 1)]


def auglocal_depths(depth: int, modules: int, pyramid: float = 0.5) -> list[int]:
    """Return the depths of the heads, from the first to the last.

    They fall linearly from ``depth`` towards 1; the last head goes the share ``pyramid`` of the way. Depths are
    rounded. With ``depth=2`` and ``pyramid=0.5`` all heads keep depth 2.

    Args:
        depth: Depth of the first head.
        modules: Number of modules, one more than the number of heads.
        pyramid: Share of the way to 1, from 0 to 1.
    """
    shares = [pyramid * head / (modules - 2) if modules > 2 else 0.0 for head in range(modules - 1)]
    return [max(1, round(depth * (1 - share) + share)) for share in shares]


class AugLocal(Auxiliary):
    """AugLocal head: ``depth`` units built like units that follow the module, evenly chosen, with separate weights.

    Paper: https://arxiv.org/abs/2402.17318. Basic blocks of this project's CIFAR ResNets are built for the width of
    their input, as in the released code. Such a block downsamples once at most; any further downsampling that the width
    asks for is left to the next block. Units of other networks are copied, after a 1x1 convolution (tokens: a linear
    layer) if the shape does not fit. The released code has no such networks.

    The units are followed by a copy of the network's end. If the end has hidden layers with more parameters than the
    units, as in VGG, the mean of the map and a linear layer replace it. Unlike in the released code, a head of depth 1
    has no batch norm before its classifier, so it also works on a batch of one image.

    Args:
        depth: Number of units of the first head, 2 by default. The released code uses 1 to 5 for ResNet-32 and
            ResNet-110, and 4 for ResNet-34 on ImageNet.
        pyramid: Share of the way to 1 that the depth falls from the first head to the last: 0 keeps the depth, 1 ends
            at depth 1. The default is the released code's.
        merge_last: Applies if the network is cut after every unit. True keeps the last ``depth + 1`` units and the
            classifier together, as in the released code for CIFAR. False cuts there too, as in its code for ImageNet.

    Raises:
        InputError: If ``depth`` is less than 1 or ``pyramid`` is outside [0, 1].
    """

    def __init__(self, depth: int = 2, *, pyramid: float = 0.5, merge_last: bool = True) -> None:
        at_least(1, depth=depth)
        check(0 <= pyramid <= 1, "pyramid", pyramid, "in [0, 1]")
        self.depth = depth
        self.pyramid = pyramid
        self.kept_units = depth + 1 if merge_last else 1

    def build(self, cut: Cut) -> LocalHead:
        """Build the head for one module."""
        depth = auglocal_depths(self.depth, cut.count + 1, self.pyramid)[cut.index]
        chosen = [cut.units[index] for index in auglocal_units(cut.unit, len(cut.units), depth)]
        layers: list[nn.Module] = []
        shape = cut.features
        if all(_basic_block(unit) for unit in chosen):
            layers = _basic_blocks(shape[1], chosen)
        else:
            for unit in chosen:
                check_copied(unit, "AugLocal")
                if shape[1:] != unit.inputs[1:]:
                    layers.append(Adapter(shape, unit.inputs, channels_last=cut.channels_last))
                layers.append(fresh_copy(nn.Sequential(*unit)))
                shape = unit.outputs
        tail = cut.partition.tail
        copied = tail.complete and not _outweighs(tail, layers)
        if copied or not tail.complete:
            layers += [fresh_copy(layer) for layer in tail]
        if not copied:
            tokens = cut.units[-1].outputs
            readout = Readout(
                tokens,
                cut.num_classes,
                channels_last=cut.channels_last,
                class_token=len(tokens) == 3 and math.isqrt(tokens[1]) ** 2 != tokens[1],
            )
            layers.append(readout)
        return ClassifierHead(nn.Sequential(*layers))


def _outweighs(tail: Iterable[nn.Module], units: Iterable[nn.Module]) -> bool:
    """Return whether a network's end has hidden layers and more parameters than the units before it."""
    hidden = sum(parameter.ndim > 1 for layer in tail for parameter in layer.parameters()) > 1
    sizes = [sum(p.numel() for layer in layers for p in layer.parameters()) for layers in (tail, units)]
    return hidden and sizes[0] > sizes[1]


class ClassifierHead(LocalHead):
    """Head that trains a module with the run's objective on the head's logits.

    Args:
        layers: Network from the module's features to logits.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: Tensor, batch: LocalBatch) -> Tensor:
        """Return the losses ``(N,)``."""
        return batch.classify(self.layers(features))


def _basic_block(unit: LocalUnit) -> bool:
    block = unit[0] if len(unit) == 1 else None
    return isinstance(block, BasicBlock) and not block.pre_activation


def _basic_blocks(width: int, units: list[LocalUnit]) -> list[nn.Module]:
    """Return blocks with the units' widths. Each doubling of the width halves the map, in this block or a later one."""
    blocks: list[nn.Module] = []
    owed = 0
    for unit in units:
        wanted = unit.outputs[1]
        owed += int(math.log2(max(1, wanted // width)))
        stride = 2 if owed > 0 else 1
        owed -= stride - 1
        blocks.append(BasicBlock(width, wanted, stride=stride))
        width = wanted
    for block in blocks:
        he_initialization(block)
    return blocks
