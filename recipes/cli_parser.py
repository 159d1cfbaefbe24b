"""The parser of the trainer's commands: its errors say in a few lines what is wrong, where, and what is near."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..modules.errors import InputError
from ..modules.objectives import Objective

# What a class name in a recipe can stand for.
_BASES = (LightningModule, LightningDataModule, Callback, Objective, Optimizer, LRScheduler, Logger, Strategy)


class OptionError(InputError):
    """An option, class or value that the parser does not accept.

    Args:
        message: What is wrong, where, and what is near.
        word: The last part of the option's name, the class, or the value.
    """

    def __init__(self, message: str, word: str) -> None:
        super().__init__(message)
        self.word = word


class RecipesParser(LightningArgumentParser):
    """LightningCLI's parser with short errors."""

    arguments: list[str]
    """The command and its options, to tell which of them, or of the files, an error is about."""
    configs: dict[str, Path]
    """The files given with ``-c`` under the names the user gave them, in order."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what the parser found as an error for the user."""
        if not self.exit_on_error:  # a class's own parser, whose message becomes part of the one above
            super().error(message, ex)
        raise self.explain(message) from ex

    def explain(self, message: str) -> InputError:
        """The parser's message in one or two lines: what, where, and a suggestion."""
        key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
        if match := re.search(r"unrecognized arguments: -*([^\s=]+)|not accept option '([^']+)'", message):
            word = match[1] or match[2]
            return self._sentence(f"unknown option {word}", word.rsplit(".", 1)[-1], self._near_option(word))
        if match := re.search(r"Option '(\w+)' is not accepted", message):
            word, owner = match[1], self._owner(message, match.start())
            near = difflib.get_close_matches(word, defaults(owner), 3, 0.5)
            return self._sentence(f"{key}: {owner.rsplit('.', 1)[-1]} has no option {word}", word, near)
        if match := re.search(r"Expected a dot import path string: (\S+)", message):
            word = match[1]
            near = difflib.get_close_matches(word, {cls.__name__ for cls in subclasses(*_BASES)}, 3, 0.6)
            return self._sentence(f"{key}: there is no class {word}", word, near)
        if match := re.search(r"arguments are required: \w+\.(\S+)", message):
            return InputError(
                f"no {match[1]} was given: name a recipe, e.g. -c digits/supervised (`recipes list` shows all)"
            )
        expected = list(dict.fromkeys(re.findall(r"(?:^|- )\s*(Expected (?!a <class 'NoneType'>).*)", message, re.M)))
        if expected and (given := re.search(r"Given value: (.*)", message)):
            wanted = " or ".join(_plain(line) for line in expected)
            nested = re.search(r"NestedArg\(key='(\w+)', val='?(.*?)'?\)$", given[1])
            value = nested[2] if nested else given[1]
            return self._sentence(f"{key}: expected {wanted} but got {value}", value)
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        return InputError("\n  ".join(line[:200] for line in lines[:4]))

    def _sentence(self, problem: str, word: str, near: Iterable[str] = ()) -> OptionError:
        hint = ", ".join(near)
        return OptionError(problem + self._origin(word) + (f"; did you mean {hint}?" if hint else ""), word)

    def _origin(self, word: str) -> str:
        """Where a word was given: on the command line, or in which file and line."""
        whole = re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])")
        if any(whole.search(argument) for argument in self.arguments):
            return ""
        for name, path in reversed(self.configs.items()):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if whole.search(line.split("#", 1)[0]):
                    return f" (in {name}, line {number})"
        return ""

    def _near_option(self, word: str) -> list[str]:
        parsers = [self, *getattr(self, "_subcommand_parsers", {}).values()]
        for action in self._actions:
            parsers += (action.choices or {}).values() if isinstance(action.choices, dict) else []
        known = {option.lstrip("-") for parser in parsers for a in parser._actions for option in a.option_strings}
        return difflib.get_close_matches(word, known, 3, 0.7)

    @staticmethod
    def _owner(message: str, position: int) -> str:
        """Dotted path of the class that does not accept an option."""
        after = re.search(r"Got value: Namespace\(class_path='([\w.]+)'", message[position:])
        before = re.findall(r"class_path '([\w.]+)'", message[:position])
        return after[1] if after else before[-1] if before else ""


def _plain(expectation: str) -> str:
    """`Expected a <class 'int'>` and the like, as a person would say it."""
    text = re.sub(r"\. Got value: .*|Expected (an? )?|<class |>", "", expectation)
    return re.sub(r"'(\w+)'$", r"\1", text.replace("typing.Literal", "one of "))


def subclasses(*bases: type) -> Iterator[type]:
    """All imported subclasses of some classes."""
    for base in bases:
        for cls in base.__subclasses__():
            yield cls
            yield from subclasses(cls)


def defaults(path: str) -> dict[str, Any]:
    """A class's constructor arguments, those of its bases included, with their defaults; none if it is not found."""
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
