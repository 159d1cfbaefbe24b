"""`recipes fit` and the trainer's other commands: LightningCLI with run folders and short errors."""

from __future__ import annotations

import json
import logging
import re
import shlex
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden

from ... import callbacks, datamodules, recipes
from ...callbacks.run.graceful_interrupt import GracefulExit
from ...modules.core.errors import InputError, RunError
from ...modules.core.files import replaced
from ...modules.lightning_private import DeferredCLI
from ...modules.optimizers.lars import LARS
from .checkpoint import check_checkpoint
from .default_callbacks import check_unique, default_callbacks, default_loggers
from .parsing import recipe_files, trainer_lists
from .parsing.changed_classes import warn_of_changed_classes
from .parsing.loss_weights import drop_weights_of_another_loss
from .parsing.parser import RecipesParser
from .refusals import check_settings, explained
from .resume import wandb_run
from .run_folder import RunFolder
from .save_recipe import SaveRecipe
from .trainer import RecipesTrainer

# Classes have short names once they are imported. Recipes are imported on first use, so import all of them here.
_IMPORTED = [getattr(package, name) for package in (recipes, callbacks, datamodules) for name in package.__all__]
_IMPORTED.append(LARS)

# Arguments of a model that come from attributes of the data.
_LINKED = ("num_classes", "in_chans", "image_size", "mean", "std")

# Errors of Lightning and torch that user input can cause; they have no class of their own.
_USER_ERRORS = ("Early stopping conditioned on", "Error(s) in loading state_dict")

_PLUGINS = "lightning_recipes.plugins"


def run(arguments: list[str]) -> int:
    """Run one of the trainer's commands.

    Args:
        arguments: The command and its options, without the word ``recipes``.

    Returns:
        0, or the exit code of a run that a signal ended.

    Raises:
        InputError: If the user's input is invalid.
        RunError: If the run failed after its start.
    """
    return completed(arguments)[0]


def completed(arguments: list[str]) -> tuple[int, RecipesCLI]:
    """Run a command like `run`.

    Returns:
        The exit code, and the command with its trainer, model and data.
    """
    quieten()
    load_plugins()
    cli = RecipesCLI(*recipe_files.resolve(arguments), command=shlex.join(["recipes", *arguments]))
    started = False
    try:
        cli.execute()
        started = cli.subcommand != "fit"  # a fit counts as started if its recipe.yaml exists
    except GracefulExit as end:
        return int(str(end.code)), cli
    except BaseException as error:
        if isinstance(error, MisconfigurationException) or str(error).startswith(_USER_ERRORS):
            raise InputError(str(error)[:300]) from error
        refusal = None if isinstance(error, RunError) else explained(error, has_trained=cli.has_trained)
        if refusal is not None:
            raise refusal from error
        raise
    finally:
        cli.close(started=started)
    return 0, cli


class RecipesCLI(DeferredCLI):
    """LightningCLI with the run folder, default callbacks and data links of this project.

    Args:
        arguments: Command and options, with a file for each ``-c``.
        configs: The files, in order, by the names that the user gave them.
        command: The command that the user typed.
    """

    def __init__(self, arguments: list[str], configs: dict[str, Path], *, command: str = "") -> None:
        self.arguments = arguments
        self.command = command
        self.configs = configs
        self.folder: RunFolder | None = None
        self._saver: SaveRecipe | None = None
        # Abbreviated options would work on the command line but fail in a file.
        options: dict[str, Any] = {"allow_abbrev": False}
        super().__init__(
            save_config_callback=None,
            trainer_class=RecipesTrainer,
            seed_everything_default=0,
            parser_class=RecipesParser,
            parser_kwargs={**options, arguments[0]: dict(options)},
            auto_configure_optimizers=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the requested trainer method with the arguments that are filled in here; others need no parser."""
        filled_in = {"model", "datamodule"}
        return {self.arguments[0]: DeferredCLI.subcommands().get(self.arguments[0], filled_in)}

    @property
    def run_dir(self) -> Path | None:
        """Folder of the run; None for a run that writes nothing."""
        return self.folder.path if self.folder is not None else None

    @property
    def has_trained(self) -> bool:
        """True if a training step was finished."""
        return self._saver is not None and self._saver.has_trained

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser that knows the files for its error messages."""
        parser: Any = super().init_parser(**kwargs)
        parser.arguments, parser.configs = self.arguments, self.configs
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder's options, and link model arguments to the data."""
        parser.add_argument("--name", type=str | None, help="Name of the run's folder (default: from the -c options).")
        parser.add_argument(
            "--run_dir",
            type=str | None,
            help="Folder of this run (default: <trainer.default_root_dir, or runs>/<name>/<time>).",
        )
        if self.arguments[0] == "fit":
            parser.add_argument(
                "--resume",
                action="store_true",
                help="Resume the run in --run_dir from its newest checkpoint, or start it if there is none.",
            )
        for key in _LINKED:
            parser.link_arguments(
                "data", f"model.init_args.{key}", compute_fn=self._from_data(key), apply_on="instantiate"
            )

    def _from_data(self, key: str) -> Callable[[Any], Any]:
        def value(data: Any) -> Any:
            given = self.settings.get(f"model.init_args.{key}")
            known = getattr(data, key, given)
            if given is not None and given != known and self._is_given(key):
                rank_zero_warn(f"model.{key} {given} is replaced by {known}, the {key} of {type(data).__name__}")
            return known

        return value

    def _is_given(self, key: str) -> bool:
        """Return whether the user gave an argument of the model, on the command line or in a file."""
        models = [recipe_files.load(name, path).get("model") for name, path in self.configs.items()]
        in_files = [model.get("init_args") or {} for model in models if isinstance(model, dict)]
        return any(re.match(rf"--model\.(init_args\.)?{key}\b", word) for word in self.arguments) or any(
            key in arguments for arguments in in_files
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments given to this object, not those in ``sys.argv``."""
        words, of_class = trainer_lists.expand(self.arguments, self.configs)
        self.config = parser.parse_args(words)
        if of_class:
            self.config = parser.parse_args([*words, *trainer_lists.with_options_of_classes(self.settings, of_class)])
        settings = self.settings
        check_settings(settings, str(self.config.subcommand))
        warn_of_changed_classes(settings, self.configs, self.arguments)
        trainer_lists.warn_of_replaced_lists(self.arguments, self.configs)
        drop_weights_of_another_loss(settings.model, self.configs, self.arguments)
        if settings.name is None:
            settings.name = "+".join(map(recipe_files.run_name, self.configs)) or "unnamed"
        if ".." in Path(settings.name).parts or Path(settings.name).is_absolute():
            raise InputError(f"name {settings.name} would leave the folder of runs; --run_dir names a folder elsewhere")

    @property
    def settings(self) -> Any:
        """The parsed options of the command."""
        return self.config[self.config.subcommand]

    def instantiate_classes(self) -> None:
        """Build data, model and trainer; an exception of a constructor becomes an error of the recipe."""
        try:
            super().instantiate_classes()
        except BaseException as error:
            self.close(started=False)
            refusal = explained(error)
            if refusal is not None:
                raise refusal from error
            if isinstance(error, (ValueError, TypeError, ImportError, MisconfigurationException)):
                raise InputError(f"{type(error).__name__} while building the recipe: {error}") from error
            raise

    def before_instantiate_classes(self) -> None:
        """Make the run folder, and direct loggers without a folder to it."""
        settings = self.settings
        self.recipe = settings.clone()
        if settings.trainer.fast_dev_run or settings.trainer.barebones:
            return
        self.folder = RunFolder(
            str(self.subcommand),
            name=settings.name,
            root=settings.trainer.default_root_dir,
            exact=settings.run_dir,
            checkpoint=settings.ckpt_path,
            resume=settings.get("resume", False),
        )
        settings.ckpt_path = self.folder.checkpoint
        loggers = settings.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            arguments = getattr(logger, "init_args", None)
            if arguments is not None and str(arguments.get("save_dir")) in (".", "runs"):
                arguments.save_dir = str(self.run_dir)
                if "WandbLogger" in logger.class_path and arguments.get("id") is None:
                    # A test is logged to the wandb run of the training that wrote the checkpoint.
                    of_checkpoint = Path(settings.ckpt_path or ".").resolve().parent.parent
                    is_fit = self.config.subcommand == "fit"
                    if self.folder.resumes or not is_fit:
                        arguments.id = wandb_run(self.folder.path if is_fit else of_checkpoint)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Build the trainer with the default callbacks and loggers, which write to the run folder."""
        trainer = self.config_init[str(self.subcommand)].trainer
        given = trainer.callbacks or []
        given = given if isinstance(given, list) else [given]
        check_unique(given)
        chosen = given + default_callbacks(
            str(self.subcommand),
            given,
            trainer=trainer,
            model=self.model,
            run_dir=self.run_dir,
            checkpoint=self.settings.ckpt_path,
        )
        if self.folder is not None and self.run_dir is not None:
            self._saver = SaveRecipe(self.command_parser, self.recipe, self.run_dir, self.command)
            chosen.append(self._saver)
            kwargs |= {
                "default_root_dir": str(self.run_dir),
                "logger": default_loggers(
                    trainer.logger, self.run_dir, self.settings.ckpt_path if self.folder.resumes else None
                ),
            }
        # Lightning's summary lists the parts of a recipe; `RunSummary` counts the parameters.
        kwargs["enable_model_summary"] = bool(trainer.enable_model_summary)
        return super().instantiate_trainer(callbacks=chosen, **kwargs)

    def execute(self) -> None:
        """Run the command."""
        command = str(self.subcommand)
        if self.datamodule is not None and is_overridden("state_dict", self.datamodule):
            # Lightning knows loaders that resume within an epoch, but not data modules.
            warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch")
        if self.settings.ckpt_path:
            check_checkpoint(self.settings.ckpt_path, self.model)
        elif command != "fit":
            rank_zero_warn(f"no --ckpt_path was given: {command} uses the network as it was built")
        self.run_command()
        if command == "fit" and self.settings.ckpt_path and not self.has_trained:
            rank_zero_info("no step was left to train: give a larger --trainer.max_epochs or max_steps to go on")
        if command in ("validate", "test") and self.run_dir is not None and self.trainer.is_global_zero:
            metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
            with replaced(self.run_dir / "metrics.json") as file:
                file.write_text(json.dumps(metrics, indent=2) + "\n")

    def close(self, *, started: bool) -> None:
        """Release the run folder, and remove it if the command never started."""
        if self.folder is not None:
            self.folder.close(started=started)


def load_plugins() -> None:
    """Import plugins of other installed projects, so that their classes have short names here.

    A plugin is an entry point of the group ``lightning_recipes.plugins`` that names a module.
    """
    for plugin in entry_points(group=_PLUGINS):
        try:
            plugin.load()
        except Exception as error:
            raise InputError(
                f"plugin {plugin.name!r} ({plugin.value}) cannot be imported: {type(error).__name__}: {error}."
                " Mend or uninstall the project that brings it"
            ) from error


def quieten() -> None:
    """Hide advertisements, lines about missing hardware, and advice that this project deliberately does not follow."""

    def worth_reading(record: logging.LogRecord) -> bool:
        unwanted = "Tip:|TPU available|HPU available|GPU available: False|Seed set|Running in `fast_dev"
        return not re.match(rf"(💡 |\[rank: \d+\] )?({unwanted})", record.getMessage())

    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(worth_reading)
    logging.getLogger("lightning.fabric.utilities.seed").addFilter(worth_reading)
    # A host that cannot be reached is one error at the end, not a line for each of the attempts.
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*treespec, LeafSpec.*",
        ".*`tensorboardX` has been removed.*",
        ".*callbacks used to create the checkpoint need to be provided.*",
    ):
        warnings.filterwarnings("ignore", message)
    warnings.formatwarning = _short_warning


def _short_warning(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
    """Format a warning; our own warnings without their place in the code."""
    if Path(filename).is_relative_to(Path(__file__).parents[2]):
        return f"warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"
