"""State that a run resumed in its own folder takes from there."""

from __future__ import annotations

import csv
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

ROWS = "metrics_rows"
"""Key of a checkpoint: number of rows of ``metrics.csv`` written before it."""

WANDB_RUN = "wandb run:"


def newest_checkpoint(run_dir: Path) -> str | None:
    """Return the checkpoint with the most steps, or None; unreadable ones are skipped with a warning."""
    steps: dict[tuple[int, float], Path] = {}
    for path in sorted([*run_dir.glob("checkpoints/*.ckpt"), *run_dir.glob("hpc_ckpt_*.ckpt")]):
        checkpoint = _read(path)
        if checkpoint is None or "loops" not in checkpoint:
            rank_zero_warn(f"checkpoint {path} cannot be gone on from, so it is passed over")
        else:
            steps[checkpoint["global_step"], path.stat().st_mtime] = path
    if not steps:
        return None
    newest = steps[max(steps)]
    rank_zero_info(f"going on from {newest}")
    return str(newest)


def wandb_run(run_dir: Path) -> str | None:
    """Return the id of a folder's wandb run, from a comment in its ``recipe.yaml``; None if there is none."""
    recipe = run_dir / "recipe.yaml"
    found = re.search(rf"^# {WANDB_RUN} (\S+)$", recipe.read_text(), re.MULTILINE) if recipe.is_file() else None
    return found[1] if found else None


class RunMetrics(CSVLogger):
    """Lightning's CSV logger, continued when a run is resumed.

    Args:
        run_dir: Folder of the run.
        checkpoint: Checkpoint from which the run in this folder is resumed; rows written after it are dropped. None
            begins a new file.
    """

    def __init__(self, run_dir: Path, checkpoint: str | None = None) -> None:
        super().__init__(str(run_dir), name="", version="")
        self.rows = 0
        self._earlier: list[dict[str, Any]] = []
        file = run_dir / "metrics.csv"
        if checkpoint is not None and file.is_file():
            with file.open(newline="") as lines:
                rows = list(csv.DictReader(lines))
            count = (_read(Path(checkpoint)) or {}).get(ROWS, len(rows))
            self._earlier = [{name: value for name, value in row.items() if value} for row in rows[:count]]

    @property
    def experiment(self) -> Any:
        """The writer; it starts with the earlier rows of the run."""
        with warnings.catch_warnings():
            # Lightning deletes an earlier file; it is written again below.
            warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
            writer = super().experiment
        if self._earlier:
            self.rows, earlier, self._earlier = len(self._earlier), self._earlier, []
            writer.metrics = earlier
            writer.save()
        return writer

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Add a row."""
        super().log_metrics(metrics, step)
        self.rows += 1


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:
        return None
