"""The shipped YAML files: finding, listing and copying them, without torch."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...modules.core.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# Keys that a recipe's header must have, in this order; `command` is the exact command that gives `expect`.
HEADER_KEYS = ("technique", "command", "expect", "hardware", "time", "seeds", "paper")


@dataclass(frozen=True)
class Recipe:
    """Description of a shipped recipe, read from its header and body."""

    name: str
    title: str
    header: dict[str, str]
    data: str
    network: str


def names(kind: str = "recipes") -> list[str]:
    """Return the names of the shipped ``recipes``, ``overlays`` or ``sweeps``, sorted."""
    files = (path.relative_to(CONFIGS).with_suffix("") for path in CONFIGS.rglob("*.yaml"))
    kinds = {"overlays", "sweeps"}
    return sorted(
        file.as_posix() if kind == "recipes" else file.relative_to(kind).as_posix()
        for file in files
        if (file.parts[0] == kind if kind in kinds else file.parts[0] not in kinds)
    )


def find(name: str) -> Path:
    """Return the file of a shipped recipe or overlay.

    Raises:
        InputError: If no shipped file has that name; the message suggests similar names.
    """
    for folder in (CONFIGS, CONFIGS / "overlays"):
        path = folder / f"{name.removesuffix('.yaml')}.yaml"
        if path.is_file() and path.resolve().is_relative_to(CONFIGS):
            return path
    known = names() + names("overlays")
    near = difflib.get_close_matches(name, known, 3, 0.5) or [known_name for known_name in known if name in known_name]
    hint = f"did you mean {' or '.join(near[:3])}?" if near else "`recipes list` shows what is shipped."
    raise InputError(f"no recipe or file {name!r}; {hint}")


def resolve(name: str) -> Path:
    """Return the file of ``-c NAME``: a path that exists, or else a shipped name."""
    path = Path(name)
    if path.is_file():
        return path
    try:
        return find(name)
    except InputError:
        if path.is_dir():
            raise InputError(f"{name} is a folder: name a file in it, or what `recipes list` shows") from None
        raise


def describe(name: str) -> Recipe:
    """Read the header and body of a shipped recipe."""
    text = find(name).read_text()
    comments = [line[1:].strip() for line in re.match(r"(#.*\n)*", text).group().splitlines()]  # type: ignore
    header = dict(re.findall(r"^(\w+):\s+(.+)$", "\n".join(comments), re.MULTILINE))
    body: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    data, model = body.get("data") or {}, body.get("model") or {}
    title = comments[0] if comments else ""
    return Recipe(name, title, header, data.get("class_path", ""), str(model.get("init_args", {}).get("network", "")))


# Kinds of classes that `recipes list` can show, in addition to recipes and overlays.
KINDS = (
    *("callbacks", "losses", "objectives", "heads", "datamodules", "networks"),
    *("matchings", "models", "optimizers", "schedules"),
)


def print_list(word: str | None = None) -> None:
    """Print the recipes, two lines each in a terminal, and the overlays.

    Args:
        word: Show only entries with this word in name, title, technique, data, network or paper.

    Raises:
        InputError: If no entry has the word.
    """
    recipes = [recipe for recipe in map(describe, names()) if _has(recipe, word)]
    overlays = [overlay for overlay in map(describe, names("overlays")) if _has(overlay, word)]
    if not recipes and not overlays:
        raise InputError(
            f"no recipe or overlay has {word!r} in it; `recipes list` shows all, or a kind of class: "
            + ", ".join(KINDS)
        )
    width = _width()
    for recipe in recipes:
        head = recipe.header
        expected, time, paper = (head.get(key, "") for key in ("expect", "time", "paper"))
        if width is None:
            print(
                "  ".join((recipe.name, head.get("technique", ""), recipe.data, recipe.network, expected, time, paper))
            )
        else:
            print(_cut(f"{recipe.name:<30} {recipe.data:<12} {recipe.network}", width))
            print(_cut(f"    {expected}; {time}" if time != "not measured" else f"    {expected}", width))
    if overlays:
        print()
        print_rows(
            "overlay: put it after a recipe, -c cifar10/supervised -c bf16", [(o.name, o.title) for o in overlays]
        )


def print_rows(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and texts in two columns, cut at the terminal's width; whole lines without a terminal."""
    width = _width()
    first = max((len(name) for name, _ in rows), default=0)
    print(title)
    for name, text in rows:
        print(_cut(f"  {name:<{first}}  {text}".rstrip(), width))


def _has(recipe: Recipe, word: str | None) -> bool:
    head = recipe.header
    texts = (recipe.name, recipe.title, recipe.data, recipe.network, head.get("technique", ""), head.get("paper", ""))
    return word is None or any(word.lower() in text.lower() for text in texts)


def _width() -> int | None:
    """Return the columns of the terminal; None if the output goes to a file or another program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def copy(name: str, destination: str) -> Path:
    """Copy a shipped recipe to a file or into a folder, and return the new file.

    Raises:
        InputError: If the destination exists already or cannot be written.
    """
    source = find(name)
    target = Path(destination)
    if target.is_dir() or destination.endswith("/"):
        target = target / source.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x") as file:
            file.write(source.read_text())
    except OSError as error:
        if target.exists():
            raise InputError(f"{target} exists already; give another name or remove it first") from None
        raise InputError(f"cannot write {target}: {error.strerror}") from None
    return target
