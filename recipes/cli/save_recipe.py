"""Saving of a run's resolved recipe, with any logger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import WandbLogger

from ...modules.core.files import replaced
from ...modules.core.versions import versions
from .checkpoint import check_momentum
from .resume import ROWS, WANDB_RUN, RunMetrics


class SaveRecipe(Callback):
    """Writes ``recipe.yaml``, the complete configuration, to the run folder and to wandb.

    ``recipes fit -c FILE`` runs the file as it is, in a new run folder.

    Args:
        parser: Parser of the command.
        config: The parsed configuration.
        run_dir: Folder of the run.
        command: The command that the user typed.
    """

    def __init__(self, parser: LightningArgumentParser, config: Any, run_dir: Path, command: str) -> None:
        self.command = command
        self.parser = parser
        self.config = config
        self.path = run_dir / "recipe.yaml"
        self.has_trained = False
        self._is_written = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record that a step was finished."""
        self.has_trained = True

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file: data, model and optimizer were built without an error."""
        self.write(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        self.write(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        self.write(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        self.write(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        self.write(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the number of rows of ``metrics.csv`` that belong to the checkpoint."""
        for logger in trainer.loggers:
            if isinstance(logger, RunMetrics) and trainer.is_global_zero:
                logger.save()
                checkpoint[ROWS] = logger.rows

    def write(self, trainer: Trainer) -> None:
        """Write the file, once."""
        if self._is_written or not trainer.is_global_zero:
            return
        check_momentum(trainer.optimizers)
        self._is_written = True
        runs = [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        text = "".join(f"# {WANDB_RUN} {run.id}\n" for run in runs[:1]) + self._text()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(self.path) as file:
            file.write_text(text)
        for run in runs:
            # Under one key, as a sweep locks the names that it sets itself.
            run.config.update({"recipe": yaml.safe_load(text)}, allow_val_change=True)
            copy = Path(run.dir) / "recipe.yaml"
            copy.write_text(text)
            run.save(str(copy), base_path=run.dir, policy="now")

    def _text(self) -> str:
        content = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        # The checkpoint and the options of the command are not part of the recipe.
        recipe = {
            key: content[key] for key in ("name", "seed_everything", "model", "data", "trainer") if key in content
        }
        body = yaml.safe_dump(recipe, sort_keys=False)
        command = " ".join(self.command.split())  # an argument with line breaks would end the comment
        with_versions = ", ".join(f"{name} {value}" for name, value in versions().items())
        return f"# Complete recipe of one run, which was: {command}\n# with {with_versions}\n{body}"
