"""Names of weights in other projects' files for the networks of the distillation benchmarks."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn


def benchmark_names(network: nn.Module) -> list[dict[str, str]]:
    """Return the names that other projects give to a network's weights.

    The layouts belong to the ResNets, wide ResNets and VGGs of RepDistiller and mdistiller (their checkpoints are
    shared by the CIFAR-100 tables) and to their ResNet-50, which many CIFAR repositories copy.

    Args:
        network: One of our ``cifar_*`` networks.

    Returns:
        For each layout, the other project's name by our name. A layout that the network does not have gives names that
        no file holds.
    """
    keys = list(network.state_dict())
    blocks = 1 + max((int(match[1]) for key in keys if (match := re.match(r"blocks\.(\d+)\.", key))), default=-1)
    layouts = (_resnet, _wide_resnet, _vgg, _imagenet_resnet)
    return [{key: layout(key, blocks) for key in keys} for layout in layouts]


Layout = Callable[[str, int], str]


def _resnet(key: str, blocks: int) -> str:
    """Three stages ``layer1`` to ``layer3``, shortcuts ``downsample``."""
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
    """Three stages ``block1.layer`` to ``block3.layer``, shortcuts ``convShortcut``."""
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
    """Five groups ``block0`` to ``block4``, each a sequence of convolution, norm and ReLU."""
    match = re.match(r"blocks\.(\d+)\.(\d)\.(.*)", key)
    if match is None:
        return key
    group, place = divmod(int(match[1]), max(1, blocks // 5))
    return f"block{group}.{3 * place + int(match[2])}.{match[3]}"


def _imagenet_resnet(key: str, blocks: int) -> str:
    """Shortcuts ``shortcut``, classifier ``linear``."""
    return re.sub(r"^fc\.", "linear.", key.replace(".downsample.", ".shortcut."))


def _staged(key: str, blocks: int, name: str) -> str:
    """A block's number within three stages of as many blocks each."""
    match = re.match(r"blocks\.(\d+)\.(.*)", key)
    if match is None:
        return key
    stage, place = divmod(int(match[1]), max(1, blocks // 3))
    return f"{name.format(stage + 1, place)}.{match[2]}"
