"""Lists of the classes and networks that a recipe can name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Sequence

from ....modules.networks import own_networks
from ..catalog import print_rows
from ..parsing.parser import BASES_OF, subclasses
from ..trainer_cli import load_plugins, quieten

# Kinds of classes that `recipes list` can show, with the last part of their option.
_OPTIONS = {
    "callbacks": "callbacks",
    "losses": "loss",
    "objectives": "objective",
    "heads": "auxiliary",
    "datamodules": "data",
    "matchings": "matching",
    "models": "model",
    "optimizers": "optimizer",
    "schedules": "lr_scheduler",
}


def print_classes(kind: str) -> None:
    """Print the classes of a kind, or the networks, each with its first docstring line.

    Args:
        kind: One of `catalog.KINDS`.
    """
    quieten()
    load_plugins()
    if kind == "networks":
        rows = [(name, _first_line(build)) for name, build in sorted(own_networks().items())]
        print_rows("network (any network of timm can be named too)", rows)
        return
    print_rows(kind, list(_rows(_OPTIONS[kind])))


def help_of_all(arguments: Sequence[str]) -> bool:
    """Print the classes of an option ``--….help`` given without a class; return False if there is none."""
    for word, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        part = word.lstrip("-").split(".")[-2:-1]
        if word.startswith("--") and word.endswith(".help") and following.startswith("-") and part[0] in BASES_OF:
            print_rows(f"{word} CLASS", list(_rows(part[0])))
            return True
    return False


def _rows(option: str) -> Iterator[tuple[str, str]]:
    """Return name and first docstring line of the classes that an option accepts, this project's first."""
    found = {cls.__name__: cls for cls in subclasses(*BASES_OF[option]) if _is_for_users(cls)}
    root = __name__.partition(".")[0]
    for name, cls in sorted(found.items(), key=lambda item: (not item[1].__module__.startswith(f"{root}."), item[0])):
        yield name, _first_line(cls)


def _is_for_users(cls: type) -> bool:
    """Return whether a class is public and not a part of the command line."""
    package, *parts = cls.__module__.split(".")
    if package == __name__.partition(".")[0]:
        return not cls.__name__.startswith("_") and "cli" not in parts
    return not any(part.startswith("_") for part in [cls.__name__, *parts])


def _first_line(part: object) -> str:
    part = part.func if isinstance(part, functools.partial) else part
    return (inspect.getdoc(part) or "").strip().partition("\n")[0]
