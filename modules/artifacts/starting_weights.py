"""Initial weights of a network from a file."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from ..core.errors import InputError
from ..teachers.weights import read_weights


def start_from(network: nn.Module, path: str | Path) -> list[str]:
    """Load the weights of a file into a network if name and shape agree, and report the rest.

    Args:
        network: The network. Weights that are missing in the file or have another shape keep their values, e.g. the
            classifier if the number of classes differs.
        path: A checkpoint of a run, an exported ``network.safetensors``, or another state dict. Its names may have a
            common prefix, such as ``network.``.

    Returns:
        Names of the network's weights that were not loaded.

    Raises:
        InputError: If the file cannot be read or none of its weights fits.
    """
    weights, own = read_weights(path), network.state_dict()
    prefixes = sorted({name.removesuffix(key) for name in weights for key in own if name.endswith(f".{key}")} | {""})
    fits = {prefix: _fitting(weights, own, prefix) for prefix in prefixes}
    prefix = max(prefixes, key=lambda prefix: len(fits[prefix]))
    found = fits[prefix]
    if not found:
        raise InputError(
            f"weights {path} has none of {type(network).__name__}'s weights, such as {next(iter(own), 'none')}, in"
            " their shape: give a file of the same network"
        )
    network.load_state_dict({name: weights[prefix + name] for name in found}, strict=False)
    left = [name for name in own if name not in found]
    spare = [name for name in weights if name.startswith(prefix) and name.removeprefix(prefix) not in found]
    rank_zero_info(
        f"Starting from {len(found)} of {len(own)} weights of {path}."
        + (f" Not in it, or of another shape: {_some(left)}." if left else "")
        + (f" Not used: {_some(spare)}." if spare else "")
    )
    return left


def _fitting(weights: dict[str, Tensor], own: dict[str, Tensor], prefix: str) -> set[str]:
    return {
        name for name, value in own.items() if prefix + name in weights and weights[prefix + name].shape == value.shape
    }


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
