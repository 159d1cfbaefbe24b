"""The `-c` options: shipped names become files, and their order is checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ....modules.core.errors import InputError
from ..catalog import CONFIGS
from ..catalog import names as catalog_names
from ..catalog import resolve as resolve_name

# Keys of a file that are left out on the command line.
_IMPLIED = ("class_path", "init_args", "dict_kwargs")


@dataclass(frozen=True)
class Place:
    """One key or list item of a file: its place, and the name that the user gave the file."""

    name: str
    key: str
    value: str
    line: int
    keys: tuple[str | int, ...]


def resolve(arguments: list[str]) -> tuple[list[str], dict[str, Path]]:
    """Replace the names given with ``-c`` or ``--config`` by files.

    Args:
        arguments: Command and options, without the word ``recipes``.

    Returns:
        The arguments with files for names, moved to the front so that other options override them, and the files by the
        names that the user gave them, in order.

    Raises:
        InputError: If a name is unknown, a file is not YAML, or an overlay comes before the recipe it changes.
    """
    others, configs = [], {}
    words = iter(arguments[1:])
    known = {*catalog_names(), *catalog_names("overlays")}
    for word in words:
        option, separator, name = word.partition("=")
        is_value = bool(others) and others[-1].startswith("-") and "=" not in others[-1]
        if (
            not word.startswith("-")
            and not is_value
            and (word.removesuffix(".yaml") in known or word.endswith(".yaml"))
        ):
            raise InputError(f"write -c before the name of a recipe: recipes {arguments[0]} -c {word}")
        if re.match(r"-c[^=-]", word):
            raise InputError(f"write -c {word[2:]}, with a space")
        if option not in ("-c", "--config"):
            others.append(word)
            continue
        if not separator:
            name = next(words, "")
        if not name:
            raise InputError("-c needs the name of a recipe or a file; `recipes list` shows what is shipped")
        # Absolute: the parser changes folder while it reads a file.
        configs[name] = resolve_name(name).resolve()
    _check_order(configs)
    files = [word for path in configs.values() for word in ("--config", str(path))]
    return [arguments[0], *files, *others], configs


def run_name(name: str) -> str:
    """Return the name of a recipe in the run's folder name."""
    path = Path(name)
    if not path.is_file():
        return name.removesuffix(".yaml")
    path = path.resolve()
    if path.is_relative_to(CONFIGS):
        return path.relative_to(CONFIGS).with_suffix("").as_posix()
    return path.stem


def load(name: str, path: Path) -> dict[str, Any]:
    """Return the content of a recipe file, given the user's name for it.

    Raises:
        InputError: If it cannot be read or is not a YAML mapping.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{name}{where} is not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        held = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise InputError(f"{name} must hold keys such as model, data and trainer but {held}")
    return content


def is_complete(content: dict[str, Any]) -> bool:
    """Return whether a file names its model; an overlay does not."""
    model = content.get("model")
    return isinstance(model, str) or (isinstance(model, dict) and model.keys() != {"init_args"})


def plain(key: str) -> str:
    """Return an option in its short form: ``model.init_args.lr`` becomes ``model.lr``."""
    return ".".join(part.rstrip("+") for part in key.split(".") if part not in _IMPLIED)


def places(name: str, path: Path) -> Iterator[Place]:
    """Return all keys and list items of a file, in order."""

    def walk(node: yaml.Node, keys: tuple[str | int, ...]) -> Iterator[Place]:
        if isinstance(node, yaml.MappingNode):
            below = [(key.value, key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            below = [(index, item, item) for index, item in enumerate(node.value)]
        else:
            below = []
        for key, start, value in below:
            inner = (*keys, key)
            option = plain(".".join(key for key in inner if isinstance(key, str)))
            text = value.value if isinstance(value, yaml.ScalarNode) else ""
            yield Place(name, option, text, start.start_mark.line + 1, inner)
            yield from walk(value, inner)

    return walk(yaml.compose(path.read_text()), ())


def _check_order(configs: dict[str, Path]) -> None:
    appended_by: str | None = None
    for name, path in configs.items():
        content = load(name, path)
        if "config" in content and content["config"] is not None:
            # The parser would replace whole blocks of the included file instead of merging them.
            raise InputError(f"{name} includes another file by the key `config`: give several -c instead")
        if appended_by is not None and is_complete(content):
            raise InputError(
                f"-c {appended_by} adds to what comes before it and must follow the recipe: -c {name} -c {appended_by}"
            )
        if any(str(key).endswith("+") for key in (content.get("trainer") or {})):
            appended_by = name
