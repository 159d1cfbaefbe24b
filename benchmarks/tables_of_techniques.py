"""Table of techniques, from the heads and bodies of the shipped recipes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from lightning_recipes.recipes.cli.catalog import (  # pyright: ignore[reportMissingImports]
    Recipe,
    describe,
    find,
    names,
)
from tables import ROOT, table

# Parts that a technique does not decide.
COMMON = {"optimizer", "lr_scheduler", "training"}
DIGITS = " on scikit-learn's handwritten digits"


def techniques() -> str:
    """One table per family: short description, classes, recipes and papers of its techniques."""
    overlays = set(names("overlays"))
    recipes: dict[str, list[Recipe]] = {}
    for recipe in map(describe, names()):
        recipes.setdefault(recipe.header["technique"], []).append(recipe)
    families: dict[str, list[list[str]]] = {}
    for page in sorted((ROOT / "docs").glob("*/*.md")):
        family, technique = page.parent.name, page.stem
        if technique in recipes:
            row = _row(technique, recipes[technique], overlay=technique in overlays)
            families.setdefault(family, []).append([f"[{technique}](../{family}/{page.name})", *row])
    header = ["technique", "in short", "classes", "use it with", "paper"]
    titles = {family: family.replace("_", " ").capitalize() for family in families}
    return "\n\n".join(f"## {titles[family]}\n\n{table(header, body)}" for family, body in families.items())


def _row(technique: str, recipes: list[Recipe], *, overlay: bool) -> list[str]:
    first = min(recipes, key=lambda recipe: not recipe.name.startswith("digits/"))
    commands = [f"`-c {recipe.name}`" for recipe in recipes]
    if overlay:
        commands.append(f"`-c {technique}` on any recipe")
    body = yaml.safe_load(find(first.name).read_text())
    classes = [f"`{name}`" for name in dict.fromkeys(_classes([body["model"], body["trainer"].get("callbacks", [])]))]
    papers = dict.fromkeys(recipe.header["paper"].split()[0] for recipe in recipes)
    cells = [", ".join(classes), "<br>".join(commands), "<br>".join(map(_link, papers))]
    return [first.title.replace(DIGITS, ""), *cells]


def _link(address: str) -> str:
    return f"[{address.rsplit('/', 1)[-1] if 'arxiv.org' in address else 'paper'}]({address})"


def _classes(node: Any) -> Iterator[str]:
    """Names of the classes in a recipe, from the outside to the inside."""
    if isinstance(node, dict):
        if "class_path" in node:
            yield node["class_path"]
        for key, value in node.items():
            if key not in COMMON:
                yield from _classes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _classes(value)
