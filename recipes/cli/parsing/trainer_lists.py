"""Callbacks and loggers of several files: options by class name, and a warning when a list replaces another."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ....modules.core.errors import InputError
from . import recipe_files

_LISTS = ("callbacks", "logger")
_OF_CLASS = re.compile(r"--trainer\.(callbacks|logger)\.([A-Z]\w*)\.([\w.]+)")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # YAML reads 1e-3 as a string


def expand(arguments: Sequence[str], configs: Mapping[str, Path]) -> tuple[list[str], dict[str, str]]:
    """Turn file keys that the parser does not know into options, and take out options given by class name.

    Such keys are dotted ones, ``trainer.max_epochs: 20``, and options below ``callbacks`` or ``logger`` without a list.

    Args:
        arguments: Command and options, with a file for each ``-c``.
        configs: The files by the names that the user gave them.

    Returns:
        The arguments for the parser, and the values of options such as ``--trainer.callbacks.InfoBatch.prune_ratio``,
        which may come in any position.
    """
    names = {str(path): name for name, path in configs.items()}
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word != "--config":
            words.append(word)
            continue
        path = next(rest)
        content = recipe_files.load(names.get(path, path), Path(path))
        options = list(_take_options(content))
        words += [*(["--config", path] if not options else ["--config", json.dumps(content)] if content else [])]
        words += options
    kept: list[str] = []
    of_class: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        option, separator, value = word.partition("=")
        if _OF_CLASS.fullmatch(option):
            of_class[option] = value if separator else next(rest, "")
        else:
            kept.append(word)
    return kept, of_class


def _take_options(content: dict[str, Any]) -> Iterator[str]:
    """Remove the keys that must be options from a file's content, and return the options."""
    for key in [key for key in content if isinstance(key, str) and "." in key]:
        yield _option(key, content.pop(key))
    trainer: Any = content.get("trainer")
    if not isinstance(trainer, dict):
        return
    for key in _LISTS:
        options = trainer.get(key)
        if not isinstance(options, dict) or "class_path" in options:
            continue
        del trainer[key]
        for name, value in options.items():
            inner = value if isinstance(value, dict) and name[:1].isupper() else {"": value}
            for option, setting in inner.items():
                yield _option(f"trainer.{key}.{name}.{option}".rstrip("."), setting)


def _option(key: str, value: Any) -> str:
    return f"--{key}={value if isinstance(value, str) else json.dumps(value)}"


def with_options_of_classes(settings: Any, of_class: Mapping[str, str]) -> list[str]:
    """Apply options by class name to the lists of callbacks and loggers, and return the lists as arguments.

    Args:
        settings: The options, parsed without the options by class name.
        of_class: Values by option, from `expand`.

    Raises:
        InputError: If the run has no callback or logger of that class, or several.
    """
    changed: dict[str, list[Any]] = {}
    for option, text in of_class.items():
        key, name, path = _OF_CLASS.fullmatch(option).groups()  # type: ignore[union-attr]
        if key not in changed:
            given = settings.trainer.get(key)
            given = given if isinstance(given, list) else [given] if hasattr(given, "class_path") else []
            changed[key] = [_plain(item) for item in given]
        found = [item for item in changed[key] if _class_name(item) == name]
        kind = "callback" if key == "callbacks" else "logger"
        if not found:
            there = ", ".join(map(_class_name, changed[key])) or "none"
            raise InputError(
                f"{option}: the recipe has no {kind} {name} ({kind}s: {there}); add it by --trainer.{key}+ {name}"
            )
        if len(found) > 1:
            raise InputError(
                f"{option}: the recipe has {len(found)} {kind}s {name}; write this option in a file instead"
            )
        target: Any = found[0]
        *above, last = path.split(".")
        for part in above:
            target = target.setdefault("init_args", {}) if "class_path" in target else target
            target = target.setdefault(part, {})
        target = target.setdefault("init_args", {}) if "class_path" in target else target
        target[last] = _value(text)
        if isinstance(target[last], float) and not math.isfinite(target[last]):
            raise InputError(f"{option} must be a finite number but is {text}")
    return [f"--trainer.{key}={json.dumps(items)}" for key, items in changed.items()]


def _value(text: str) -> Any:
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _plain(item: Any) -> Any:
    return item.as_dict() if hasattr(item, "as_dict") else item


def _class_name(item: Any) -> str:
    path = item.get("class_path", "") if hasattr(item, "get") else item
    return str(path).rpartition(".")[2]


def warn_of_replaced_lists(arguments: Sequence[str], configs: Mapping[str, Path]) -> None:
    """Warn of callbacks and loggers that are lost because a later file or option replaces the list.

    Args:
        arguments: Command and options.
        configs: The files, in order, by the names that the user gave them.
    """
    for key in _LISTS:
        there: list[str] = []
        owners: list[str] = []
        for source, adds, items in _given(key, arguments, configs):
            lost = [name for name in there if name not in items]
            if not adds and lost:
                warnings.warn(
                    f"{source} replaces the {key} of {' and '.join(owners)}, {', '.join(lost)}:"
                    f" write trainer.{key}+ to add to them",
                    stacklevel=2,
                )
            if not adds:
                there, owners = [], []
            there += items
            owners += [source] if items else []


def _given(key: str, arguments: Sequence[str], configs: Mapping[str, Path]) -> Iterator[tuple[str, bool, list[str]]]:
    """Return all lists of callbacks or loggers, each with source, whether it adds, and class names."""
    for name, path in configs.items():
        content = recipe_files.load(name, path)
        trainer = content.get("trainer")
        for place, prefix in ((trainer, ""), (content, "trainer.")):
            for suffix in ("", "+"):
                value = place.get(f"{prefix}{key}{suffix}") if isinstance(place, dict) else None
                if isinstance(value, (list, str)) or (isinstance(value, dict) and "class_path" in value):
                    yield name, suffix == "+", _names(value)
    words = iter(arguments)
    for word in words:
        option, separator, value = word.partition("=")
        if option in (f"--trainer.{key}", f"--trainer.{key}+"):
            value = yaml.safe_load(value if separator else next(words, "null"))
            if isinstance(value, (list, str, dict)):
                yield option, option.endswith("+"), _names(value)


def _names(value: Any) -> list[str]:
    items: Iterable[Any] = value if isinstance(value, list) else [value]
    return [_class_name(item) for item in items]
