"""Weights of a network from a file of any project."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..core.errors import InputError
from .key_maps import benchmark_names

_NAMES = ("state_dict", "model", "net", "network", "model_state_dict", "model_state", "weights")
"""Names under which checkpoints hold their weights."""


def load_weights(network: nn.Module, path: str | Path, *, prefix: str | None = None) -> None:
    """Load the weights of a file into a network.

    A file is a state dict or a checkpoint that holds one, as ``.safetensors`` or from `torch.save`. Its names are the
    network's, possibly with a common prefix such as ``model.`` or ``module.``, or the names of `benchmark_names`.

    Args:
        network: The network; all its weights must be in the file.
        path: The file.
        prefix: Common prefix of the network's weights in the file; None finds it.

    Raises:
        InputError: If the file cannot be read, has no weights or several matching sets, or does not fit the network.

    Examples:
        >>> network = nn.Linear(2, 2)
        >>> torch.save({"epoch": 240, "model": nn.DataParallel(network).state_dict()}, "ckpt_epoch_240.pth")
        >>> load_weights(network, "ckpt_epoch_240.pth")
    """
    weights = read_weights(path)
    own = network.state_dict()
    # Files of old torch versions lack these counters; evaluation does not use them.
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    layouts = [{key: key for key in own}, *benchmark_names(network)]
    found: dict[str, dict[str, str]] = {}
    for names in layouts:
        for start in _prefixes(weights, names, counters) if prefix is None else [prefix]:
            if start not in found and all(start + names[key] in weights for key in own if key not in counters):
                found[start] = names
    if "" in found:
        found = {"": found[""]}
    if not found:
        raise InputError(_unfit(weights, layouts, path, prefix))
    if len(found) > 1:
        raise InputError(
            f"teacher file {path} holds several sets of weights that fit, under {', '.join(sorted(found))}: choose one"
            " with teacher_args.prefix"
        )
    ((start, names),) = found.items()
    chosen = {key: weights[start + names[key]] for key in own if start + names[key] in weights}
    spare = {key for key in weights if key.startswith(start)} - {start + names[key] for key in own}
    # Wide ResNets in the layout of TRADES, as in RobustBench, hold an unused copy of a stage.
    spare = {key for key in spare if not key.startswith(f"{start}sub_block1.")}
    if spare:
        raise InputError(
            f"teacher file {path} holds more than {type(network).__name__} has, e.g. {', '.join(sorted(spare)[:3])}:"
            " it is another network's, name that one"
        )
    try:
        network.load_state_dict({**{key: own[key] for key in counters}, **chosen})
    except RuntimeError as error:
        raise InputError(f"teacher file {path} does not fit {type(network).__name__}: {str(error)[:300]}") from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or of a checkpoint that holds one.

    Args:
        path: A ``.safetensors`` file or a file of `torch.save`, with only tensors and plain values.

    Raises:
        InputError: If the file is missing, cannot be read, or holds no weights.
    """
    if not Path(path).is_file():
        raise InputError(f"teacher file {path} does not exist: name another in teacher_args.checkpoint_path")
    try:
        if Path(path).suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            # Checkpoints often hold the options of their run, and its best accuracy as a numpy number.
            with torch.serialization.safe_globals(_PLAIN):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError) as error:
        raise InputError(f"teacher file {path} cannot be read: {_first_line(error)}") from error
    except Exception as error:  # from pickle, and from torch for values that are not plain
        raise InputError(
            f"teacher file {path} holds more than tensors and plain values ({_first_line(error)}): save its state_dict"
            " alone with torch.save"
        ) from error
    holders = content if isinstance(content, Mapping) else {}
    for holder in (content, *(holders.get(name) for name in _NAMES)):
        if found := _tensors(holder):
            return {_plain(key): value for key, value in found.items()}
    # Other names in the file, such as student and teacher, become prefixes of the weights' names.
    if found := {f"{name}.{_plain(key)}": value for name in holders for key, value in _tensors(holders[name]).items()}:
        return found
    raise InputError(f"teacher file {path} holds no weights: give a state dict, or a checkpoint with `state_dict`")


def _tensors(holder: Any) -> dict[str, Tensor]:
    """Return the tensors of a mapping, or nothing if they are not the majority of its entries."""
    if not isinstance(holder, Mapping):
        return {}
    found = {str(key): value for key, value in holder.items() if isinstance(value, Tensor)}
    return found if len(found) > len(holder) / 2 else {}


# Types of options and numbers that are safe to unpickle. Some modules have been renamed.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_ARRAY: Any = np.zeros(0).__reduce__()[0]
_PLAIN: list[Any] = [
    Namespace,
    *((PosixPath, f"pathlib.{name}") for name in ("PosixPath", "_local.PosixPath")),
    np.dtype,
    np.ndarray,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]


def _plain(key: str) -> str:
    """Remove the prefixes of parallel and compiled training from a name."""
    return key.removeprefix("module.").replace("_orig_mod.", "")


def _prefixes(weights: Mapping[str, Tensor], names: Mapping[str, str], counters: set[str]) -> list[str]:
    """Return the possible prefixes of the network's weights in a file."""
    name = next((theirs for ours, theirs in names.items() if ours not in counters), None)
    if name is None:
        return []
    starts = {key.removesuffix(name) for key in weights if key == name or key.endswith(f".{name}")}
    return sorted(starts)


def _unfit(weights: Mapping[str, Tensor], layouts: list[dict[str, str]], path: str | Path, prefix: str | None) -> str:
    """Return a message with the weights that the file lacks, for the layout that fits best."""
    lacking = [[key for key in names.values() if (prefix or "") + key not in weights] for names in layouts]
    missing = min(lacking, key=len)
    under = "" if prefix is None else f" under the prefix {prefix!r}"
    return (
        f"teacher file {path} does not fit the network: it lacks {len(missing)} of {len(layouts[0])} weights{under},"
        f" e.g. {', '.join(missing[:1])}; it has {', '.join(list(weights)[:3])}, …: name the"
        " network that it was saved from, or the prefix of its weights with teacher_args.prefix"
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100] if str(error).strip() else ''}"
