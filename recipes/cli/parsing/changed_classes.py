"""Warnings about a class that replaces a recipe's class: values it keeps, and values that are dropped."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from . import recipe_files
from .parser import class_of_name, defaults


def warn_of_changed_classes(settings: Any, configs: Mapping[str, Path], arguments: Sequence[str]) -> None:
    """Warn when a later file or option replaces a class: name the values that it keeps and those that it drops.

    Args:
        settings: The parsed options.
        configs: The files of the run, in order, by the names that the user gave them.
        arguments: The options of the command line, which override the files.
    """
    sources = [(name, recipe_files.load(name, path)) for name, path in configs.items()]
    options = list(_options(arguments))
    for key, node in _classes(settings):
        final = _name(node.class_path)
        written: dict[str, tuple[str | None, str, Any]] = {}
        current = None
        for name, values in [
            *((name, values) for name, content in sources for values in _given(content, key)),
            *((option, values) for option, value in options for values in _given_by_option(option, value, key)),
        ]:
            current = _name(values.get("class_path")) or current
            written |= {argument: (current, name, value) for argument, value in values.get("init_args", {}).items()}
        _warn(key, node, {name: origin for name, origin in written.items() if origin[0] not in (None, final)})


def _warn(key: str, node: Any, written: Mapping[str, tuple[str | None, str, Any]]) -> None:
    """Warn of values that were written for another class, except values equal to the default."""
    final = _name(node.class_path)
    own, kept, left_out = defaults(node.class_path), [], []
    others: dict[str, None] = {}
    for argument, (other, name, value) in written.items():
        now = node.init_args.get(argument)
        if argument in node.init_args and _text(now) == _text(value):
            if argument in own and _text(own[argument]) != _text(value):
                kept.append(f"{argument} {_text(value)}{_default(own[argument])}")
                others[f"{other} of {name}"] = None
        elif argument not in node.init_args and _text(defaults(class_of_name(str(other))).get(argument)) != _text(
            value
        ):
            left_out.append(f"{argument} {_text(value)}")
            others[f"{other} of {name}"] = None
    if others:
        parts = [f"keeps {', '.join(kept)}"] if kept else []
        parts += [f"leaves out {', '.join(left_out)}"] if left_out else []
        warnings.warn(f"{key} {final} replaces {' and '.join(others)}: it {' and '.join(parts)}", stacklevel=2)


def _own(name: str | None, argument: str) -> Any:
    return defaults(class_of_name(str(name))).get(argument)


def _default(value: Any) -> str:
    return f" (its own: {_text(value)})" if isinstance(value, (bool, int, float, str)) else ""


def _classes(settings: Any) -> Iterator[tuple[str, Any]]:
    """Return all classes of the parsed model and data, with their options."""

    def walk(key: str, node: Any) -> Iterator[tuple[str, Any]]:
        arguments = node.get("init_args") if hasattr(node, "get") else None
        if arguments is not None and hasattr(arguments, "items"):
            yield key, node
            for name, value in vars(arguments).items() if hasattr(arguments, "as_dict") else arguments.items():
                yield from walk(f"{key}.{name}", value)

    for key in ("model", "data"):
        if settings.get(key) is not None:
            yield from walk(key, settings[key])


def _given(content: Any, key: str) -> Iterator[dict[str, Any]]:
    """Return the class and the arguments that a file gives for an option."""
    node: Any = content
    for part in key.split("."):
        if isinstance(node, dict) and "init_args" in node:
            node = node["init_args"]
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, str):
        yield {"class_path": node}
    elif isinstance(node, dict):
        arguments = node.get("init_args")
        yield {"class_path": node.get("class_path"), "init_args": arguments if isinstance(arguments, dict) else {}}


def _given_by_option(option: str, value: Any, key: str) -> Iterator[dict[str, Any]]:
    """Return the class and the arguments that one word of the command line gives for an option."""
    plain = recipe_files.plain(option)
    if option.endswith(".class_path") and plain == key:
        yield {"class_path": value}
    elif plain.startswith(f"{key}."):
        yield {"init_args": {plain[len(key) + 1 :].partition(".")[0]: value}}
    elif plain == key:
        yield from _given({"value": value}, "value")


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Return options of model and data, with their values."""
    for index, word in enumerate(arguments):
        option, separator, text = word.partition("=")
        if option.startswith(("--model", "--data")):
            text = text if separator else arguments[index + 1] if index + 1 < len(arguments) else ""
            try:
                yield option[2:], yaml.safe_load(text)
            except yaml.YAMLError:
                yield option[2:], text


def _name(path: Any) -> str | None:
    return str(path).rpartition(".")[2] if path else None


def _text(value: Any) -> str:
    """Return a value as text: a class by its name, and equal numbers in the same form."""
    if hasattr(value, "get") and value.get("class_path"):
        return str(_name(value["class_path"]))
    if isinstance(value, str) and value.rpartition(".")[2][:1].isupper():
        return str(_name(value))
    try:
        return str(value) if isinstance(value, bool) or value is None else f"{float(value):g}"
    except (TypeError, ValueError):
        return str(value)
