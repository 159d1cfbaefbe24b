"""`recipes check`: build recipes without training and report every problem of each."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from ..modules.errors import InputError
from . import cli_configs
from .cli_catalog import resolve
from .cli_parser import OptionError
from .cli_run import RecipesCLI, load_plugins, quieten

# An overlay is no complete recipe; it is looked at on top of this one.
_BASE = "digits/supervised"


def check(recipes: list[str]) -> int:
    """Parse and build each recipe and print what is wrong with it.

    A problem in the file hides those behind it, so the offending key is left out and the rest is looked at again.

    Args:
        recipes: Shipped names or files, each a complete recipe.

    Returns:
        0 if all can be built, else 2.
    """
    quieten()
    load_plugins()
    failed = 0
    for name in recipes:
        problems = _problems(name)
        failed += bool(problems)
        print(f"{name}: " + ("ok" if not problems else f"{len(problems)} problem{'s'[: len(problems) > 1]}"))
        for problem in problems:
            print(f"  - {problem}", file=sys.stderr)
    return 2 if failed else 0


def _problems(name: str) -> list[str]:
    path = resolve(name).resolve()
    content = cli_configs.load(path)
    base = [] if "model" in content else ["--config", str(resolve(_BASE))]
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        while True:
            file.write_text(yaml.safe_dump(content, sort_keys=False))
            # fast_dev_run: nothing is written.
            arguments = ["fit", *base, "--config", str(file), "--trainer.fast_dev_run", "true"]
            try:
                RecipesCLI(arguments, {name: path})
                return problems
            except InputError as error:
                problems.append(str(error))
                if not isinstance(error, OptionError) or not _remove(content, error.word):
                    return problems


def _remove(content: Any, word: str) -> bool:
    """Take out what a word stands for: its key, the block of a class of that name, or the value."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        of_class = isinstance(value, dict) and value.get("class_path") == word
        if key == word or of_class or (not isinstance(value, (dict, list)) and str(value) == word):
            del content[key]
            return True
        if _remove(value, word):
            return True
    return False
