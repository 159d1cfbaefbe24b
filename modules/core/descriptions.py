"""Descriptions of objects in plain values, so that a checkpoint can hold them and a load can build them again."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import InputError

Kind = TypeVar("Kind")


def describe(value: object) -> dict[str, Any] | None:
    """Return class and arguments of an object, as a recipe file writes them.

    Args:
        value: An object that keeps its arguments as attributes of the same name; None stays None.

    Returns:
        ``class_path`` and ``init_args``. An argument without an attribute is left out. ``init_args`` is None for a
        class outside of this package, and for arguments that are no plain values.
    """
    if value is None:
        return None
    kind = type(value)
    known = vars(value)
    arguments = {name: known[name] for name in inspect.signature(kind).parameters if name in known}
    plain = kind.__module__.startswith(_PACKAGE) and all(map(_is_plain, arguments.values()))
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments if plain else None}


def rebuild(value: Kind | Mapping[str, Any] | None, kind: type[Kind], *, argument: str) -> Kind | None:
    """Return the object of a description; an object, and None, stay as they are.

    Args:
        value: As `describe` returns it, or an object.
        kind: Class that the object must be of.
        argument: Name of the argument, for messages.

    Raises:
        InputError: If the description is of a class outside of this package, or of another kind.
    """
    if not isinstance(value, Mapping):
        return value
    module, _, name = str(value.get("class_path")).rpartition(".")
    arguments = value.get("init_args")
    if arguments is None or not module.startswith(_PACKAGE):
        raise InputError(
            f"the checkpoint was made with {argument} {value.get('class_path')}, which it cannot build again: give"
            f" {argument}=…, e.g. to load_from_checkpoint"
        )
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type) or not issubclass(found, kind):
        raise InputError(f"{argument} must be a {kind.__name__} but is {module}.{name}")
    return found(**arguments)


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


_PACKAGE = f"{__name__.partition('.')[0]}."
