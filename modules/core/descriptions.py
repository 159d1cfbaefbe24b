"""Descriptions of objects in plain values, so that a checkpoint can store them and a load can rebuild them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import InputError

Kind = TypeVar("Kind")


def describe(value: object) -> dict[str, Any] | None:
    """Return the class and arguments of an object, as a recipe file writes them.

    Args:
        value: An object that keeps its arguments as attributes of the same name; None stays None.

    Returns:
        ``class_path`` and ``init_args``. Arguments without an attribute are left out. ``init_args`` is None if the
        class is not part of this package or an argument is not a plain value.
    """
    if value is None:
        return None
    kind = type(value)
    known = vars(value)
    arguments = {name: known[name] for name in inspect.signature(kind).parameters if name in known}
    plain = kind.__module__.startswith(_PACKAGE) and all(map(_is_plain, arguments.values()))
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments if plain else None}


def rebuild(value: Kind | Mapping[str, Any] | None, kind: type[Kind], *, argument: str) -> Kind | None:
    """Build the object that a description stands for; objects and None are returned unchanged.

    Args:
        value: A description from `describe`, or an object.
        kind: Required class of the object.
        argument: Name of the argument, for messages.

    Raises:
        InputError: If the class in the description is not part of this package or not a subclass of ``kind``.
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
