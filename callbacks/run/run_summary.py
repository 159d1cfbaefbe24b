"""Summary of a run's results and cost, as a short table and as `summary.json`."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from ...modules.core.files import replaced
from ...modules.core.versions import versions
from ..selection.engine.batches import count_samples
from .graceful_interrupt import GracefulExit

try:
    import resource
except ImportError:  # Windows
    resource = None


class RunSummary(Callback):
    """Prints a table at the end of `fit` and writes the same figures to ``summary.json``.

    A run that ends early by a signal gets its table too.

    The best and the last value of the metric that the module names in its attribute ``monitor`` (``monitor_mode``
    "max", the default, or "min" says which is best), samples processed, wall and CPU seconds, samples per second of
    training without validation, and peak memory in MiB: allocated on the GPU where there is one, else resident.
    Figures of one process, but for the samples, which are those of all. In a resumed run best and last are those of
    the whole run, everything else that of the part since then. The best value is the value of the best checkpoint.

    A module or callback adds figures of its own by a method ``run_figures(*, seconds_per_sample) -> dict``, which is
    told the wall seconds of training that one sample took.

    Args:
        dirpath: Folder of ``summary.json``.
        test: Command that measures the best checkpoint, printed with ``--ckpt_path FILE`` after it.
    """

    def __init__(self, dirpath: str, test: str = "") -> None:
        self.dirpath = Path(dirpath)
        self.test = test
        self._samples = 0
        self._monitored: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        self._monitored = []

    def state_dict(self) -> dict[str, Any]:
        """The monitored values, so that the best of a resumed run is the best of the whole."""
        return {"monitored": self._monitored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the values of the run that is resumed."""
        self._monitored = list(state_dict["monitored"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        self._samples = 0
        self._first_step = trainer.global_step
        self._wall, self._cpu, self._validation = time.perf_counter(), _cpu_seconds(), 0.0
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the samples."""
        self._samples += count_samples(batch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time validation apart from training."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of the monitored value."""
        if trainer.sanity_checking:
            return
        self._validation += time.perf_counter() - self._validation_start
        value = trainer.callback_metrics.get(getattr(pl_module, "monitor", ""))
        if value is not None:
            self._monitored.append(float(value))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect, write and print the figures."""
        self._report(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Do the same for a run that was interrupted, where all processes end together."""
        if isinstance(exception, GracefulExit):
            self._report(trainer, pl_module)

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        samples = trainer.strategy.reduce(torch.tensor(float(self._samples), device=pl_module.device), reduce_op="sum")
        if trainer.is_global_zero:
            figures = self._figures(trainer, pl_module, round(float(samples)))
            self.dirpath.mkdir(parents=True, exist_ok=True)
            with replaced(self.dirpath / "summary.json") as file:
                file.write_text(json.dumps(figures, indent=2) + "\n")
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    # Lightning keeps the last value of a metric; these are the best and the costs.
                    logger.experiment.summary.update(
                        {name: value for name, value in figures.items() if value is not None}
                    )
            self._print(figures)

    def _figures(self, trainer: Trainer, pl_module: LightningModule, samples: int) -> dict[str, Any]:
        wall = time.perf_counter() - self._wall
        figures: dict[str, Any] = {}
        checkpoints: Any = trainer.checkpoint_callback
        if self._monitored:
            best = min if getattr(pl_module, "monitor_mode", "max") == "min" else max
            monitor = pl_module.monitor
            figures |= {f"best {monitor}": best(self._monitored), f"last {monitor}": self._monitored[-1]}
            if getattr(checkpoints, "monitor", None) == monitor and checkpoints.best_model_score is not None:
                # A value and a file that belong together, also where a resumed run knows the file of its part only.
                figures[f"best {monitor}"] = float(checkpoints.best_model_score)
        if pl_module.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(pl_module.device) / 2**20
        else:
            memory = _resident_mib()
        training = max(1e-9, wall - self._validation)
        for part in (pl_module, *trainer.callbacks):  # type: ignore[attr-defined]
            run_figures: Any = getattr(part, "run_figures", None)
            if run_figures is not None:
                figures |= run_figures(seconds_per_sample=training / max(1, samples))
        return figures | {
            "trained parameters": sum(p.numel() for p in pl_module.parameters() if p.requires_grad),
            "epochs": trainer.current_epoch,
            "optimizer steps": trainer.global_step - self._first_step,
            "samples": samples,
            "wall seconds": round(wall, 3),
            "cpu seconds": round(_cpu_seconds() - self._cpu, 3),
            "training samples per second": round(samples / training, 1),
            "peak memory MiB": memory if memory is None else round(memory, 1),
            "best checkpoint": _near(getattr(checkpoints, "best_model_path", None)),
            "last checkpoint": _near(getattr(checkpoints, "last_model_path", None)),
            "versions": versions(),
            "run folder": str(self.dirpath),
        }

    def _print(self, figures: dict[str, Any]) -> None:
        shown = {name: value for name, value in figures.items() if value is not None and name != "versions"}
        width = max(map(len, shown))
        lines = [f"{name:<{width}}  {_text(name, value)}" for name, value in shown.items()]
        checkpoint = figures["best checkpoint"] or figures["last checkpoint"]
        if self.test and checkpoint:
            lines += ["", f"To test it:  {self.test} --ckpt_path {shlex.quote(checkpoint)}"]
        print("\n" + "\n".join(lines), flush=True)


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4f}" if "/" in name else f"{value:,}"


def _near(path: str | None) -> str | None:
    """A path as seen from the current folder where it lies below it."""
    if path and Path(path).is_relative_to(Path.cwd()):
        return str(Path(path).relative_to(Path.cwd()))
    return path or None


def _resident_mib() -> float | None:
    """Peak resident memory of this process; None where the system does not tell."""
    if resource is None:
        return None
    # Kilobytes everywhere but on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _cpu_seconds() -> float:
    """CPU seconds of this process and, where the system tells, of its finished workers."""
    if resource is None:
        return time.process_time()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
