"""The console script `recipes`: runs commands that need no torch, and passes the others on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from ...modules.core.errors import InputError, RunError
from . import catalog

_TRAINER_COMMANDS = {
    "fit": "train a recipe",
    "validate": "measure a checkpoint on the validation images",
    "test": "measure a checkpoint on the test images",
    "predict": "write class and probabilities for each image of a folder",
    "export": "write a checkpoint's network as safetensors, torch.export program or ONNX",
    "temperatures": "show the effect of ATS on a checkpoint's network for each pair of temperatures",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after ``recipes``; None takes the arguments of this process.

    Returns:
        0 on success; 1 if a run failed; 2 if an argument or file is invalid; 143 or 138 if SIGTERM or SIGUSR1 ended a
        run.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments and arguments[0] in _TRAINER_COMMANDS:
            from .commands.list_classes import help_of_all
            from .trainer_cli import run

            return 0 if help_of_all(arguments) else run(arguments)
        code = _front(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output has stopped, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:  # before a run had anything to save; later, the run itself handles it
        print("interrupted", file=sys.stderr)
        return 1


def _front(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "recipes",
        description="Training techniques that combine from one command.",
        epilog="Try: recipes list, then recipes fit -c digits/supervised. Every option of a run is listed by"
        " recipes fit --help.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lightning-recipes {version('lightning-recipes')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    listed = commands.add_parser("list", help="list the shipped recipes and overlays, or classes", allow_abbrev=False)
    listed.add_argument(
        "word", nargs="?", help=f"only recipes with this word, or a kind of class: {', '.join(catalog.KINDS)}"
    )
    show = commands.add_parser("show", help="print a shipped recipe", allow_abbrev=False)
    show.add_argument("name", help="as `recipes list` prints it, e.g. digits/supervised")
    copy = commands.add_parser("copy", help="copy a shipped recipe to a file of your own", allow_abbrev=False)
    copy.add_argument("name", help="as `recipes list` prints it, e.g. digits/supervised")
    copy.add_argument("destination", help="file or folder; an existing file is never overwritten")
    check = commands.add_parser(
        "check", help="build recipes without training and report every problem", allow_abbrev=False
    )
    check.add_argument("recipes", nargs="+", metavar="RECIPE", help="shipped name or YAML file")
    for name, text in _TRAINER_COMMANDS.items():
        commands.add_parser(name, help=text)
    options = parser.parse_args(arguments)
    if options.command == "list":
        if options.word in catalog.KINDS:
            from .commands.list_classes import print_classes

            print_classes(options.word)
        else:
            catalog.print_list(options.word)
    elif options.command == "show":
        print(catalog.find(options.name).read_text(), end="")
    elif options.command == "copy":
        print(catalog.copy(options.name, options.destination))
    else:
        from .commands.check import check as check_recipes

        return check_recipes(options.recipes)
    return 0
