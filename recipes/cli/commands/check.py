"""`recipes check`: build recipes without training and report all their problems."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from ....modules.core.errors import InputError
from ..catalog import resolve
from ..parsing import recipe_files
from ..parsing.parser import OptionError
from ..trainer_cli import RecipesCLI, load_plugins, quieten

# An overlay is not a complete recipe, so it is checked on top of this recipe.
_BASE = "digits/supervised"


def check(recipes: list[str]) -> int:
    """Parse and build each recipe and print its problems.

    A problem can hide later ones. So each one is fixed as its message suggests, and the check is repeated.

    Args:
        recipes: Shipped names or files of recipes or overlays.

    Returns:
        0 if all recipes can be built, else 2.
    """
    quieten()
    load_plugins()
    failed = 0
    for name in recipes:
        problems = _problems(name)
        failed += bool(problems)
        print(f"{name}: " + ("ok" if not problems else f"{len(problems)} problem{'s'[: len(problems) > 1]}"))
        for problem in problems:
            print(f"  - {problem}")
    return 2 if failed else 0


def _problems(name: str) -> list[str]:
    try:
        path = resolve(name).resolve()
        content = recipe_files.load(name, path)
    except InputError as error:
        return [str(error)]
    base = [] if recipe_files.is_complete(content) else ["--config", str(resolve(_BASE))]
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        while True:
            file.write_text(yaml.safe_dump(content, sort_keys=False))
            # With fast_dev_run, no files are written.
            arguments = ["fit", *base, "--config", str(file), "--trainer.fast_dev_run", "true"]
            try:
                RecipesCLI(arguments, {name: path})
                return problems
            except InputError as error:
                problems.append(str(error))
                if not _mend(content, error):
                    return problems


def _mend(content: Any, error: InputError) -> bool:
    """Apply the suggestion, or else remove the key; return False if neither is possible."""
    if not isinstance(error, OptionError) or error.place is None:
        return False
    *above, last = error.place.keys
    try:
        for key in above:
            content = content[key]
        value = content[last]
    except LookupError:  # below a key that was fixed before
        return False
    if error.instead is None:
        if not isinstance(last, str):
            return False
        del content[last]
    elif error.is_class:
        content[last] = error.instead
    else:
        del content[last]
        content[error.instead.rpartition(".")[2]] = value
    return True
