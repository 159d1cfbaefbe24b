"""A trained network in one file: the weights and all facts needed to rebuild and use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..core.errors import InputError
from ..core.files import replaced
from ..networks import create_network

VERSION = 1
_FACTS = (
    "name",
    "network_args",
    "num_classes",
    "in_chans",
    "image_size",
    "mean",
    "std",
    "class_names",
    "preprocessing",
    "version",
)
# Arguments that name the source of the initial weights; a file brings its own weights.
_SOURCES = ("pretrained", "checkpoint_path")


def save_network(
    path: str | Path,
    network: nn.Module,
    *,
    name: str | None,
    network_args: dict[str, Any],
    num_classes: int,
    in_chans: int,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str],
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    """Write a network's weights as safetensors, with the other arguments as JSON in the file's metadata.

    Weights that share memory are written once and are shared again after loading.

    Args:
        path: File to write.
        network: The network; maps normalized images ``(N, in_chans, H, W)`` to logits ``(N, num_classes)``.
        name: timm name of the network; None for a custom module, which `load_network` cannot rebuild.
        network_args: Further arguments that the network was built with.
        num_classes: Number of logits.
        in_chans: Number of image channels.
        image_size: Height and width of an image in pixels.
        mean: Mean per channel, on the scale [0, 1]; it is subtracted from images.
        std: Standard deviation per channel, on the same scale; images are then divided by it.
        class_names: Names of the classes, in the order of the logits.
        preprocessing: Steps that bring images to ``image_size`` before normalization; None or empty if all images
            have that size.
    """
    facts = {
        "name": name,
        "network_args": network_args,
        "num_classes": num_classes,
        "in_chans": in_chans,
        "image_size": image_size,
        "mean": list(mean),
        "std": list(std),
        "class_names": list(class_names),
        "preprocessing": dict(preprocessing or {}),
        "version": VERSION,
    }
    metadata = {key: json.dumps(value) for key, value in facts.items()}
    with replaced(path) as file:
        safetensors.torch.save_model(network, str(file), metadata=metadata)


def load_network(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a network written by `save_network`.

    Args:
        path: The file.

    Returns:
        The network, in evaluation mode, and the saved facts, by the names of `save_network`'s arguments, plus
        ``version``.

    Raises:
        InputError: If the file is missing, was not written by `save_network`, or does not fit the network it names.

    Examples:
        >>> args = {"depth": 1, "width": 4}
        >>> built = create_network("convnet", num_classes=2, in_chans=3, image_size=8, network_args=args)
        >>> facts = {"network_args": args, "num_classes": 2, "in_chans": 3, "image_size": 8}
        >>> pixels = {"mean": [0.5] * 3, "std": [0.2] * 3, "class_names": ["cat", "dog"]}
        >>> save_network("network.safetensors", built, name="convnet", **facts, **pixels)
        >>> network, facts = load_network("network.safetensors")
        >>> facts["class_names"]
        ['cat', 'dog']
    """
    if not Path(path).is_file():
        raise InputError(f"network file {path} does not exist")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"network file {path} is not a safetensors file ({error})") from error
    try:
        # By name: safetensors adds an entry for every tensor that shares memory with another.
        facts: dict[str, Any] = {key: json.loads(metadata[key]) for key in _FACTS}
    except (KeyError, json.JSONDecodeError) as error:
        raise InputError(
            f"network file {path} does not say what network it holds: write it with save_network or `recipes export`"
        ) from error
    if facts["version"] != VERSION:
        raise InputError(
            f"network file {path} has version {facts['version']}, this lightning-recipes reads {VERSION}: update it"
        )
    if facts["name"] is None:
        raise InputError(
            f"network file {path} holds a module that was not built by name:"
            " build it yourself and read the weights with safetensors.torch.load_model"
        )
    network = rebuild_network(facts)
    try:
        safetensors.torch.load_model(network, str(path))
    except RuntimeError as error:
        raise InputError(f"network file {path} does not fit {facts['name']}: {str(error)[:300]}") from error
    return network.eval(), facts


def rebuild_network(facts: Mapping[str, Any]) -> nn.Module:
    """Build a network, without its trained weights, from the facts in a file.

    Args:
        facts: ``name``, ``network_args``, ``num_classes``, ``in_chans`` and ``image_size``.

    Raises:
        InputError: If there is no such network, or it does not accept the arguments.
    """
    return create_network(
        facts["name"],
        num_classes=facts["num_classes"],
        in_chans=facts["in_chans"],
        network_args={key: value for key, value in (facts["network_args"] or {}).items() if key not in _SOURCES},
        image_size=facts["image_size"],
    )
