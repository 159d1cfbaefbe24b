"""Weights of a distillation that were written for another loss."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import recipe_files

_WEIGHTS = ("ce_weight", "kd_weight", "kd_warmup")


def drop_weights_of_another_loss(model: Any, configs: Mapping[str, Path], arguments: Sequence[str]) -> None:
    """Drop the weights that a file gives for a loss if a later file or option replaces the loss.

    The new loss then uses its default weights, and a warning is shown.

    Args:
        model: The parsed model, changed in place.
        configs: The files of the run, in order, by the names that the user gave them.
        arguments: The options of the command line, which override the files.
    """
    objective = _arguments(_arguments(model).get("objective"))
    final = _class_name(objective.get("loss"))
    if final is None:
        return
    loss, written_for = None, {}
    for name, path in configs.items():
        given = _arguments(_arguments(recipe_files.load(name, path).get("model")).get("objective"))
        loss = _class_name(given.get("loss")) or loss
        written_for |= {weight: (loss, name) for weight in _WEIGHTS if given.get(weight) is not None}
    options = {recipe_files.plain(word.partition("=")[0].lstrip("-")) for word in arguments}
    for weight, (other, name) in written_for.items():
        if other is None or other == final or f"model.objective.{weight}" in options:
            continue
        warnings.warn(
            f"{weight} {objective.get(weight)} of {name} is for {other} and is left out, as the loss is {final}, which"
            f" brings its own: give --model.objective.{weight} to set it",
            stacklevel=2,
        )
        objective[weight] = None


def _arguments(node: Any) -> Any:
    """Return the arguments of a class given by a file or the parser, or an empty mapping."""
    found = node.get("init_args") if hasattr(node, "get") else None
    return found if hasattr(found, "get") else {}


def _class_name(node: Any) -> str | None:
    """Return the last part of a class's name, for a class given alone or with arguments."""
    path = node.get("class_path") if hasattr(node, "get") else node
    return str(path).rpartition(".")[2] if path else None
