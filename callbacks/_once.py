"""Check for callbacks that a run may have only once."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer

from ..modules.core.errors import InputError


def refuse_second(trainer: Trainer, callback: Callback) -> None:
    """Refuse a second callback of the same class.

    Raises:
        InputError: If the trainer has two.
    """
    if sum(isinstance(other, type(callback)) for other in trainer.callbacks) > 1:  # type: ignore[attr-defined]
        raise InputError(
            f"the callback {type(callback).__name__} is given twice, perhaps by the recipe and by an overlay: give it"
            " once"
        )
