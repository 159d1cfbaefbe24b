"""Facts from trainer and data: length of the run, and statistics of the images."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Trainer

from ..modules.core.errors import InputError


def run_epochs(trainer: Trainer) -> int | None:
    """Return the number of epochs in a run; None if it is not limited."""
    limits = [trainer.max_epochs] if trainer.max_epochs is not None and trainer.max_epochs > 0 else []
    if trainer.max_steps > 0:
        trainer.fit_loop.setup_data()  # otherwise the number of batches is still unknown
        if math.isfinite(trainer.num_training_batches):
            limits.append(math.ceil(trainer.max_steps / _epoch_steps(trainer)))
    return min(limits, default=None)


def run_length(trainer: Trainer, interval: str) -> int:
    """Return the number of scheduler steps in a run.

    Raises:
        InputError: If the run is not limited.
    """
    length: float = -1 if trainer.max_epochs is None else trainer.max_epochs
    if interval == "step" or trainer.max_steps > 0:
        length = trainer.estimated_stepping_batches
    if length < 1 or length == float("inf"):
        raise InputError(
            f"lr_scheduler needs to know how long the run is, but trainer.max_epochs is {trainer.max_epochs}"
            f" and max_steps {trainer.max_steps}: set one of them, or the schedule's total"
        )
    if interval == "epoch" and trainer.max_steps > 0:
        trainer.fit_loop.setup_data()  # otherwise the number of batches is still unknown
        length = math.ceil(length / _epoch_steps(trainer))
    return int(length)


def data_facts(data: Any) -> dict[str, Any]:
    """Return a datamodule's normalization and class names as plain values, for `Objective.meet_data`."""
    facts: dict[str, Any] = {}
    mean, std, names = (getattr(data, name, None) for name in ("mean", "std", "class_names"))
    if mean is not None and std is not None:
        facts = {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}
    return facts | ({"class_names": [str(name) for name in names]} if names else {})


def _epoch_steps(trainer: Trainer) -> int:
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
