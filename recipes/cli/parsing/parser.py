"""Parser of the trainer's commands, with short errors: the problem, its place, and similar names."""

from __future__ import annotations

import difflib
import inspect
import itertools
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ....modules.auxiliary import Auxiliary
from ....modules.core.errors import InputError
from ....modules.losses import FeatureLoss, LogitLoss
from ....modules.matching import Matching
from ....modules.objectives import Objective
from .recipe_files import Place, places, plain

# Base classes of a class named in a recipe, by the last part of its key.
BASES_OF: dict[str, tuple[type, ...]] = {
    **{"model": (LightningModule,), "data": (LightningDataModule,), "callbacks": (Callback,)},
    **{"objective": (Objective,), "loss": (LogitLoss, FeatureLoss), "losses": (LogitLoss, FeatureLoss)},
    **{"auxiliary": (Auxiliary,), "optimizer": (Optimizer,), "lr_scheduler": (LRScheduler,)},
    **{"logger": (Logger,), "strategy": (Strategy,), "matching": (Matching,)},
}
_BASES = tuple(dict.fromkeys(itertools.chain.from_iterable(BASES_OF.values())))


class OptionError(InputError):
    """An option, class or value that the parser does not accept.

    Args:
        message: The problem, its place, and similar names.
        place: Place in a file; None if it is not in a file.
        instead: The key or class that was probably meant.
        is_class: Whether the value (a class) is wrong, rather than the key.
    """

    def __init__(self, message: str, place: Place | None, instead: str | None, *, is_class: bool) -> None:
        super().__init__(message)
        self.place = place
        self.instead = instead
        self.is_class = is_class


class RecipesParser(LightningArgumentParser):
    """LightningCLI's parser with short errors."""

    arguments: list[str]
    """The command and its options, to find the source of an error."""
    configs: dict[str, Path]
    """The files given with ``-c``, in order, by the names that the user gave them."""

    def format_help(self) -> str:
        """Return the help without lists of hundreds of classes, such as all modules of torch."""
        return re.sub(r"(,\s+known\s+subclasses:(?:[^,)]*,){4})[^)]{3000,}\)", r"\1 …)", super().format_help())

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a problem that the parser found as an error for the user."""
        if not self.exit_on_error:  # the parser of a nested class: its message becomes part of the outer one
            super().error(message, ex)
        raise self.explain(message) from ex

    def explain(self, message: str) -> InputError:
        """Shorten the parser's message to one or two lines: the problem, its place, and a suggestion."""
        # The parser also tries a callback's option on the base class `Callback`. Drop this part of the message.
        base = r"\n +- Problem with given class_path 'lightning\.Callback':\n +Option '[\w.]+' is not accepted"
        message = re.sub(rf"(Problem with given class_path .*?){base}", r"\1", message, flags=re.DOTALL)
        key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
        given = _given(message)
        if match := re.search(r"unrecognized arguments: -*([^\s=]+)|not accept option '([^']+)'", message):
            word, near = self._near_option(plain(match[1] or match[2]))
            return self._refused(f"unknown option {word}", word, near=near)
        if match := re.search(r"Option '(\w+)[\w.]*' is not accepted", message):
            return self._refused_argument(key, match[1], _owner(message, match.start()))
        if match := re.search(r"a callable class: the following arguments are required: (.*)", message):
            name = re.findall(r"class_path='([\w.]+)'", message[match.start() :])[0].rpartition(".")[2]
            return InputError(f"{key}: {name} needs {match[1]}{_origin(self._place(key, name))}")
        if match := re.search(r"Multiple subclasses with name (\w+)\. .*: ([\w., ]+)\.", message):
            return InputError(f"{key}: there are several classes {match[1]}, give one by its full name: {match[2]}")
        if match := re.search(r"class_path '([\w.]+)':\s+the following arguments are required: (.*)", message):
            name = match[1].rpartition(".")[2]
            # There is no value to remove, so the error has no place.
            return InputError(f"{key}: {name} needs {match[2]}{_origin(self._place(key, name))}")
        if match := re.fullmatch(r"argument --(\S+): expected one argument", message):
            words = [*self.arguments, "--"]
            bare = [a for a, b in itertools.pairwise(words) if a.startswith("--") and b.startswith("--")]
            option = next((word for word in bare if f"{word}.".startswith(f"--{match[1]}.")), f"--{match[1]}")
            return InputError(f"option {option} needs a value; true turns a switch on")
        if match := re.search(r"arguments are required: \w+\.(\S+)", message):
            return InputError(
                f"no {match[1]} was given: name a recipe, e.g. -c digits/supervised (`recipes list` shows all)"
            )
        expected = _expected(message)
        if match := re.search(r"Expected a dot import path string: (\S+)", message):
            bases = BASES_OF.get(key.rpartition(".")[2].rstrip("+"), _BASES)
            names = {cls.__name__ for cls in subclasses(*bases)}
            near = difflib.get_close_matches(match[1], names, 3, 0.6)
            if near or not expected:
                return self._refused(f"{key}: there is no class {match[1]}", key, match[1], near=near)
        if expected:
            example = f", as in [{given}]" if expected == "list" else ""
            return self._refused(f"{key}: expected {expected}{example} but got {given}", key)
        if match := re.search(r"Not a valid subclass of (\w+)", message):
            if extra := _beside_class_path(given):
                return self._refused(f"{key}: {extra} must stand under init_args", f"{key}.{extra}")
            return self._refused(f"{key}: expected the name of a {match[1]}, or its class_path, but got {given}", key)
        if match := re.search(r"Import path does not correspond to a subclass of (\w+)", message):
            return self._refused(f"{key}: {given} is not a {match[1]}", key, given)
        if problems := re.findall(r"given class_path '([\w.]+)':\s+(.*)", message):
            path, reason = problems[-1]
            return self._refused(f"{key}: cannot use {path}: {reason}", key, path)
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        return InputError("\n  ".join(line[:200] for line in lines[:4]))

    def _refused_argument(self, key: str, word: str, owner: str) -> OptionError:
        """Return the error for a class without the argument ``word``."""
        name = owner.rpartition(".")[2]
        near = difflib.get_close_matches(word, defaults(owner), 3, 0.5)
        # The option may have been given before its class.
        having = [
            cls.__name__
            for base in _BASES
            if base.__name__ == name
            for cls in subclasses(base)
            if word in defaults(f"{cls.__module__}.{cls.__name__}")
        ]
        plus = "+" if key.endswith("callbacks") else ""  # a list
        hint = f": choose a class first, --{key}{plus} {having[0]}" if having else ""
        return self._refused(f"{key}: {name} has no option {word}{hint}", f"{key}.{word}", near=near)

    def _refused(
        self, problem: str, key: str, value: str | None = None, *, near: list[str] | None = None
    ) -> OptionError:
        place = self._place(key, value)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        return OptionError(
            problem + _origin(place) + hint, place, near[0] if near else None, is_class=value is not None
        )

    def _place(self, key: str, value: str | None) -> Place | None:
        """Return the place of a key in the files; None if the command line overrides it."""
        options = [plain(word.partition("=")[0].lstrip("-")) for word in self.arguments if word.startswith("--")]
        if any(option == key or option.startswith(f"{key}.") for option in options) and any(
            (value or "") in word for word in self.arguments
        ):
            return None
        for name, path in reversed(self.configs.items()):
            for place in places(name, path):
                if place.key == key and value in (None, place.value):
                    return place
        return None

    def _near_option(self, word: str) -> tuple[str, list[str]]:
        """Return an unknown option, up to its first wrong part, and similar options."""
        parsers = [self, *getattr(self, "_subcommand_parsers", {}).values()]
        for action in self._actions:
            parsers += (action.choices or {}).values() if isinstance(action.choices, dict) else []
        known = {option.lstrip("-") for parser in parsers for a in parser._actions for option in a.option_strings}
        parts = word.split(".")
        for depth in range(1, len(parts) + 1):
            head = ".".join(parts[:depth])
            heads = {".".join(option.split(".")[:depth]) for option in known}
            if head not in heads:
                near = difflib.get_close_matches(head, heads, 2, 0.75)
                return head, near or difflib.get_close_matches(word, known, 1, 0.7)
        return word, []


def _owner(message: str, position: int) -> str:
    """Return the dotted path of the class that does not accept an option."""
    after = re.search(r"Got value: Namespace\(class_path='([\w.]+)'", message[position:])
    before = re.findall(r"class_path '([\w.]+)'", message[:position])
    return after[1] if after else before[-1] if before else ""


def _innermost(message: str) -> str:
    """Return the part of a nested message that is about the innermost option."""
    return message[max(0, message.rfind("Parser key")) :]


def _given(message: str) -> str:
    """Return the value given for an option."""
    match = re.search(r"(?:Given|Got) value: (.*?)(?:\. Got value: Namespace.*)?$", _innermost(message), re.MULTILINE)
    value = match[1] if match else ""
    nested = re.fullmatch(r"NestedArg\(key='[\w.]+', val='?(.*?)'?\)", value)
    return (nested[1] if nested else value) or "nothing"


def _expected(message: str) -> str:
    """Return the types that an option accepts, in plain words; empty if it accepts only a class."""
    found: list[str] = []
    for kind in re.findall(r"Expected (?:an? )?(<class '[\w.]+'>|typing\.Literal\[.*?\])", _innermost(message)):
        names = re.findall(r"'([^']+)'", kind) or [kind]
        found += [name.rpartition(".")[2] for name in names if name not in ("NoneType", *found)]
    return " or ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _beside_class_path(given: str) -> str | None:
    """Return the first key of a class mapping that does not belong there."""
    try:
        keys = list(yaml.safe_load(given))
    except (yaml.YAMLError, TypeError):
        return None
    others = [key for key in keys if key not in ("class_path", "init_args", "dict_kwargs")]
    return others[0] if "class_path" in keys and others else None


def _origin(place: Place | None) -> str:
    return f" (in {place.name}, line {place.line})" if place else ""


def subclasses(*bases: type) -> Iterator[type]:
    """Return all imported concrete subclasses of some classes."""
    for base in bases:
        for cls in base.__subclasses__():
            if not inspect.isabstract(cls):
                yield cls
            yield from subclasses(cls)


def class_of_name(name: str) -> str:
    """Return the dotted path of an imported class that a recipe can name, or the name itself if there is none."""
    return next((f"{cls.__module__}.{name}" for cls in subclasses(*_BASES) if cls.__name__ == name), name)


def defaults(path: str) -> dict[str, Any]:
    """Return constructor arguments of a class and its bases, with defaults; empty if the class is not found."""
    module, _, name = path.rpartition(".")
    try:
        cls: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return {}
    found: dict[str, Any] = {}
    for base in reversed(inspect.getmro(cls)):
        if "__init__" in vars(base):
            found |= {name: value.default for name, value in inspect.signature(base.__init__).parameters.items()}
    return {name: default for name, default in found.items() if name not in ("self", "args", "kwargs")}
