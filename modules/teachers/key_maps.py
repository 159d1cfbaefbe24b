"""Weight names in other projects' files for the networks of the distillation benchmarks."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn


def benchmark_names(network: nn.Module) -> list[dict[str, str]]:
    """Return the names that other projects give to a network's weights.

    The layouts are from RepDistiller and mdistiller: ResNets, wide ResNets, VGGs, and a ResNet-50 that many CIFAR
    repositories copy. Papers with CIFAR-100 tables share checkpoints in these layouts.

    Args:
        network: One of our ``cifar_*`` networks.

    Returns:
        For each layout, a dictionary from our names to the other project's names. For layouts of other architectures,
        the names match no file.
    """
    keys = list(network.state_dict())
    blocks = 1 + max((int(match[1]) for key in keys if (match := re.match(r"blocks\.(\d+)\.", key))), default=-1)
    layouts = (_resnet, _wide_resnet, _vgg, _imagenet_resnet)
    return [{key: layout(key, blocks) for key in keys} for layout in layouts]


Layout = Callable[[str, int], str]


def _resnet(key: str, blocks: int) -> str:
    """Return the name in a layout with stages ``layer1`` to ``layer3`` and shortcuts ``downsample``."""
    key = _staged(key, blocks, "layer{}.{}")
    for ours, theirs in (
        (r"^stem\.0\.", "conv1."),
        (r"^stem\.1\.", "bn1."),
        (r"\.norm(\d)\.", r".bn\1."),
        (r"\.shortcut\.", ".downsample."),
        (r"^classifier\.", "fc."),
    ):
        key = re.sub(ours, theirs, key)
    return key


def _wide_resnet(key: str, blocks: int) -> str:
    """Return the name in a layout with stages ``block1.layer`` to ``block3.layer`` and shortcuts ``convShortcut``."""
    key = _staged(key, blocks, "block{}.layer.{}")
    for ours, theirs in (
        (r"^stem\.", "conv1."),
        (r"^norm\.0\.", "bn1."),
        (r"\.norm(\d)\.", r".bn\1."),
        (r"\.shortcut\.", ".convShortcut."),
        (r"^classifier\.", "fc."),
    ):
        key = re.sub(ours, theirs, key)
    return key


def _vgg(key: str, blocks: int) -> str:
    """Return the name in a layout with groups ``block0`` to ``block4`` of convolution, norm and ReLU."""
    match = re.match(r"blocks\.(\d+)\.(\d)\.(.*)", key)
    if match is None:
        return key
    group, place = divmod(int(match[1]), max(1, blocks // 5))
    return f"block{group}.{3 * place + int(match[2])}.{match[3]}"


def _imagenet_resnet(key: str, blocks: int) -> str:
    """Return the name in a layout with shortcuts ``shortcut`` and classifier ``linear``."""
    return re.sub(r"^fc\.", "linear.", key.replace(".downsample.", ".shortcut."))


def _staged(key: str, blocks: int, name: str) -> str:
    """Replace a block's index by its stage and its index within the stage, for three equal stages."""
    match = re.match(r"blocks\.(\d+)\.(.*)", key)
    if match is None:
        return key
    stage, place = divmod(int(match[1]), max(1, blocks // 3))
    return f"{name.format(stage + 1, place)}.{match[2]}"
