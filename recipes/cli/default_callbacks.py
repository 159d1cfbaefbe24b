"""Default callbacks and loggers of the command line."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from ...callbacks import (
    ExactResume,
    FiniteLoss,
    GracefulInterrupt,
    ImageProgressBar,
    MeanOfLosses,
    PredictionWriter,
    RunSummary,
)
from ...modules.core.errors import InputError
from ...modules.core.files import replaced
from ...modules.sample_weighting import SampleWeighting
from .resume import RunMetrics


def default_loggers(given: Any, run_dir: Path, checkpoint: str | None) -> list[Logger] | bool:
    """Return the given loggers and a CSV logger; False if logging is turned off.

    Args:
        given: The loggers of the recipe.
        run_dir: Folder of the run.
        checkpoint: Checkpoint from which the run in this folder is resumed.
    """
    if given is False:
        return False
    loggers = [] if given in (None, True) else list(given) if isinstance(given, (list, tuple)) else [given]
    if not any(isinstance(logger, CSVLogger) for logger in loggers):
        loggers.insert(0, RunMetrics(run_dir, checkpoint))
    return loggers


def check_unique(callbacks: list[Callback]) -> None:
    """Refuse a callback given by both recipe and overlay, as only one of them could save its state.

    Raises:
        InputError: If two callbacks would save their state under the same name.
    """
    keys = [callback.state_key for callback in callbacks if type(callback).state_dict is not Callback.state_dict]
    for callback in callbacks:
        if keys.count(callback.state_key) > 1:
            raise InputError(
                f"the callback {type(callback).__name__} is given twice, perhaps by the recipe and by an overlay:"
                " give it once"
            )


def default_callbacks(
    command: str,
    given: list[Callback],
    *,
    trainer: Any,
    model: LightningModule,
    run_dir: Path | None,
    checkpoint: str | None = None,
) -> list[Callback]:
    """Return the callbacks to add to the given ones.

    Args:
        command: ``fit``, ``test``, …
        given: The callbacks of the recipe; a default callback of the same kind is not added.
        trainer: Arguments of the trainer.
        model: The LightningModule; its ``monitor`` selects the best checkpoint.
        run_dir: Folder of the run; None for a run that writes nothing.
        checkpoint: Checkpoint that the command starts from.
    """

    def missing(kind: type[Callback]) -> bool:
        return not any(isinstance(callback, kind) for callback in given)

    if trainer.get("barebones"):
        return []
    chosen: list[Callback] = []
    if trainer.get("enable_progress_bar") is not False and missing(ProgressBar):
        chosen.append(ImageProgressBar())
    if run_dir is not None and command == "predict" and missing(PredictionWriter):
        chosen.append(PredictionWriter(str(run_dir / "predictions.csv")))
    if command != "fit":
        return chosen
    if missing(ExactResume):
        chosen.append(ExactResume())
    if missing(MeanOfLosses) and not isinstance(model, SampleWeighting):
        chosen.append(MeanOfLosses())
    if missing(FiniteLoss):
        chosen.append(FiniteLoss())
    if run_dir is None:
        return chosen
    recipe = shlex.quote(str(run_dir / "recipe.yaml"))
    if trainer.get("logger") is not False and missing(LearningRateMonitor):
        chosen.append(LearningRateMonitor("epoch"))
    if trainer.get("enable_checkpointing") is not False:
        checkpoints = str(run_dir / "checkpoints")
        if missing(GracefulInterrupt):
            chosen.append(GracefulInterrupt(checkpoints, resume=f"recipes fit -c {recipe}"))
        if missing(ModelCheckpoint):
            chosen.append(_checkpoints(checkpoints, model, trainer, checkpoint))
    if missing(RunSummary):
        chosen.append(RunSummary(str(run_dir), test=f"recipes test -c {recipe}"))
    return chosen


class BestAndLast(ModelCheckpoint):
    """ModelCheckpoint that writes ``last.ckpt`` after every epoch, and keeps the best checkpoint of a resumed run.

    Lightning's own ``save_last`` writes it only together with a best checkpoint.
    """

    resumed_from: str | None = None
    """Checkpoint that the run is resumed from."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last checkpoint."""
        super().on_train_epoch_end(trainer, pl_module)
        # Set before writing, as the path is part of the saved state.
        self.last_model_path = str(Path(str(self.dirpath), "last.ckpt"))
        trainer.save_checkpoint(self.last_model_path, weights_only=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy the best checkpoint so far, to be replaced only by a better one.

        It is searched at its old path, then next to the checkpoint that the run is resumed from.
        """
        here, best = Path(str(self.dirpath)), Path(state_dict["best_model_path"])
        came_from, last = Path(self.resumed_from or ""), here / "last.ckpt"
        if rank_zero_only.rank == 0 and came_from.parent.resolve() == here.resolve() and came_from.name != last.name:
            # The run was killed before it wrote the last checkpoint, perhaps at its very end.
            with replaced(last) as file:
                shutil.copyfile(came_from, file)
        if not best.is_file() and self.resumed_from is not None:
            best = Path(self.resumed_from).parent / best.name
        if not (best.is_file() and best.parent.resolve() == here.resolve()):
            copy, score = "", None
            if self._holds(best, state_dict["best_model_score"]):
                copy, score = str(here / best.name), state_dict["best_model_score"]
                if rank_zero_only.rank == 0:
                    here.mkdir(parents=True, exist_ok=True)
                    with replaced(copy) as file:
                        shutil.copyfile(best, file)
            elif state_dict["best_model_path"]:
                rank_zero_warn(
                    f"the best checkpoint so far, {state_dict['best_model_path']}, is missing, cannot be read or is"
                    " that of a later epoch: this"
                    " run keeps the best of its own epochs"
                )
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": copy,
                "best_model_score": score,
                "best_k_models": {copy: score} if copy else {},
                "kth_best_model_path": copy,
                "last_model_path": "",
            }
        super().load_state_dict(state_dict)

    def _holds(self, file: Path, score: Any) -> bool:
        """Return whether a file is the checkpoint with this score."""
        try:
            states = torch.load(file, map_location="cpu", weights_only=True, mmap=True)["callbacks"]
            return bool(states[self.state_key]["best_model_score"] == score)
        except Exception:
            return False


def _checkpoints(dirpath: str, model: LightningModule, trainer: Any, resumed_from: str | None) -> ModelCheckpoint:
    """Return a callback that keeps ``last.ckpt`` and, if validation runs, ``best.ckpt`` by the module's ``monitor``."""
    monitor = getattr(model, "monitor", None) if trainer.get("limit_val_batches") != 0 else None
    checkpoints = BestAndLast(
        dirpath,
        filename="best",
        monitor=monitor,
        mode=getattr(model, "monitor_mode", "max"),
        save_top_k=1 if monitor else 0,
        enable_version_counter=False,
    )
    checkpoints.resumed_from = resumed_from
    return checkpoints
