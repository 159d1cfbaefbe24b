"""Result and cost of a run, as a short table and as `summary.json`."""

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

    A run that is ended early by a signal gets its table too. The figures are:

    - Best and last value of the metric that the module names in ``monitor``; ``monitor_mode`` is "max" (default) or
      "min".
    - Number of samples processed, summed over all processes.
    - Wall seconds, CPU seconds, and training samples per second without validation.
    - Peak memory in MiB: allocated GPU memory on a GPU, else resident memory.

    The best value belongs to the best checkpoint. Except for the samples, all figures are of one process. In a resumed
    run, best and last value are of the whole run; all other figures count from the resumption.

    Modules and callbacks can add figures with a method ``run_figures(*, seconds_per_sample) -> dict``. Its argument is
    the training time per sample in wall seconds.

    Args:
        dirpath: Folder of ``summary.json``.
        test: Command that tests the best checkpoint, printed with ``--ckpt_path FILE`` after it.
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
        """Return the monitored values, so that a resumed run knows the best value of the whole run."""
        return {"monitored": self._monitored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the monitored values of the resumed run."""
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
        """Start the clock of the validation."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the monitored value."""
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
        """Report a run ended by a signal too. All its processes end together, so the sum over processes works."""
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
                    # Lightning's summary keeps the last value of each metric; add the best value and the costs.
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
                # Value and file must belong together; a resumed run may know only the files of its own part.
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
    """Return the path relative to the current folder if it lies below it."""
    if path and Path(path).is_relative_to(Path.cwd()):
        return str(Path(path).relative_to(Path.cwd()))
    return path or None


def _resident_mib() -> float | None:
    """Return the peak resident memory of this process; None if the system does not report it."""
    if resource is None:
        return None
    # ru_maxrss is in bytes on macOS and in KiB elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and, if the system reports them, of its finished workers."""
    if resource is None:
        return time.process_time()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
