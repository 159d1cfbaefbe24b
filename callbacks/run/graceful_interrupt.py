"""Stopping a run by a signal without losing its progress."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from ...modules.exact_resume import ExactResume
from ...modules.lightning_private import cluster_environment, is_accumulating, is_validation_due, requeue_checkpoint


class GracefulExit(SystemExit):
    """Exit of a run that saved a checkpoint after a signal; ``code`` is the exit code of the process."""


class GracefulInterrupt(Callback):
    """Saves a checkpoint and ends the run on Ctrl-C, SIGTERM or SIGUSR1.

    The step in progress is finished first. If a validation or the end of the epoch follows it, these are finished too.
    Training resumes from the checkpoint bit for bit. A second signal ends the run at once. The exit code is 1 after
    Ctrl-C, 143 after SIGTERM and 138 after SIGUSR1.

    With several processes, a signal to one is enough: all processes agree after each step and end together. Under SLURM
    with Lightning's automatic requeueing, the requeue signal saves the checkpoint, requeues the job and ends the run.

    Args:
        dirpath: Folder of ``interrupted.ckpt``. A requeued SLURM job resumes from ``hpc_ckpt_<n>.ckpt`` instead, in the
            Trainer's ``default_root_dir``, where Lightning looks for it.
        resume: Command to print, followed by ``--ckpt_path FILE``. If empty, only the file is printed.
    """

    def __init__(self, dirpath: str, resume: str = "") -> None:
        self.path = Path(dirpath) / "interrupted.ckpt"
        self.resume = resume
        self._signal = 0
        self._previous: dict[int, Any] = {}
        self._group: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Come last after a step and first before an epoch, so that all other callbacks have finished."""
        position = ExactResume.attach(trainer)
        others = [callback for callback in trainer.callbacks if not isinstance(callback, _OWN)]  # type: ignore
        trainer.callbacks = [position, _BetweenEpochs(self), *others, self]  # type: ignore[attr-defined]

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers."""
        self._take_over(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers."""
        self._take_over(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here, unless a validation or the end of the epoch follows: checkpoints are written there too."""
        if not is_validation_due(trainer):
            self._stop_within_epoch(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop here if the epoch continues after this validation."""
        if not trainer.sanity_checking:
            self._stop_within_epoch(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Print the command that resumes the run."""
        if not isinstance(exception, (KeyboardInterrupt, GracefulExit)):
            return
        last = str(getattr(trainer.checkpoint_callback, "last_model_path", ""))
        checkpoint = str(self.path) if isinstance(exception, GracefulExit) else last
        if checkpoint:
            command = f"{self.resume} --ckpt_path {shlex.quote(checkpoint)}".lstrip()
            rank_zero_info(f"Interrupted. To go on: {command}")
        else:
            rank_zero_info("Interrupted before a checkpoint had been written.")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        self._group = None

    def _take_over(self, trainer: Trainer) -> None:
        # Not in `setup`: Lightning registers its own handlers after it. Its SIGTERM handler may wait for the other
        # processes at any point, and its SLURM handler saves in the middle of a step.
        if self._previous:
            return
        self._signal = 0
        if trainer.world_size > 1 and dist.is_initialized():
            # A CPU group, so that nothing waits for the device.
            self._group = dist.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            numbers = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)}
            requeue = _requeue_signal(trainer)
            for number in numbers | ({requeue} if requeue else set()):
                self._previous[number] = signal.signal(number, self._ask)

    def _ask(self, signum: int, frame: Any) -> None:
        self._signal = signum
        for number in self._previous:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        # Not with `print` or a logger: the signal may have interrupted one of them.
        with contextlib.suppress(OSError):
            os.write(2, f"\n{name}: saving a checkpoint after this step; a second one stops at once.\n".encode())

    def _stop_within_epoch(self, trainer: Trainer) -> None:
        # A checkpoint does not contain accumulated gradients.
        if not trainer.is_last_batch and not is_accumulating(trainer):
            self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._group is not None:
            asked = torch.tensor(self._signal)
            dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._group)
            self._signal = int(asked)
        if not self._signal or trainer.global_step == trainer.max_steps:
            return
        requeued = self._signal == _requeue_signal(trainer)
        if requeued:
            # A requeued job with the same root folder resumes from this file automatically.
            self.path = Path(requeue_checkpoint(trainer))
        trainer.save_checkpoint(self.path, weights_only=False)
        if requeued and trainer.is_global_zero:
            _requeue()
        raise GracefulExit(self._exit_code(trainer))

    def _exit_code(self, trainer: Trainer) -> int:
        environment = cluster_environment(trainer)
        if isinstance(environment, LightningEnvironment) and trainer.local_rank > 0:
            return 0  # Lightning would kill the first process, which started this one, if this one failed
        return 1 if self._signal == signal.SIGINT else 128 + self._signal


class _BetweenEpochs(Callback):
    """Stops a run before an epoch begins, after all callbacks have ended the last epoch."""

    def __init__(self, interrupt: GracefulInterrupt) -> None:
        self.interrupt = interrupt

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interrupt._stop_if_asked(trainer)


_OWN = (ExactResume, GracefulInterrupt, _BetweenEpochs)


def _requeue_signal(trainer: Trainer) -> int | None:
    """Return SLURM's signal for the end of a job's time; None without SLURM or requeueing."""
    environment = cluster_environment(trainer)
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return environment.requeue_signal
    return None


def _requeue() -> None:
    """Put the SLURM job back into the queue."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        rank_zero_info(f"The job {job} could not be requeued: {error}")
