"""What several test files share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


def trainer(**options: Any) -> Trainer:
    """A silent trainer on one CPU that writes nothing."""
    return Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **options,
        }
    )


def ids(setting: Any) -> str:
    """The name of a row of settings."""
    return setting.name.replace(" ", "_")


def weights(model: LightningModule) -> dict[str, torch.Tensor]:
    """A copy of all weights and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def run_two_processes(script: Path, folder: Path, *, codes: Sequence[int] = (0, 0)) -> None:
    """Run a script, which gets the folder as its argument, as both processes of a group, which end with these codes.

    ``two_processes.py`` imports the packages and forks twice.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    tests = str(Path(__file__).resolve().parent)
    paths = {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    finished = subprocess.run(
        [sys.executable, Path(__file__).with_name("two_processes.py"), script, folder],
        env={**os.environ, **shared, **paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    ended = [int(code) for code in finished.stdout.splitlines()[-1].split()]
    assert ended == list(codes), finished.stdout[-3000:]


class Snapshots(Callback):
    """Saves a checkpoint at each point where a run may be killed.

    Args:
        folder: Where to; files are named after epoch, batch and point.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._save(trainer, "batch")

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        self._save(trainer, "validation")

    def on_train_epoch_end(self, trainer: Trainer, *args: Any) -> None:
        self._save(trainer, "epoch")

    def _save(self, trainer: Trainer, point: str) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}-{trainer.global_step}-{point}.ckpt")
