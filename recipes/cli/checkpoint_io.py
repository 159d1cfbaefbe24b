"""Writing of checkpoints to disk."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from ...modules.core.errors import RunError
from ...modules.core.files import replaced


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint next to its target and renames it.

    Lightning writes to the system's temporary folder. If this is on another disk, moving the file means copying over
    the only ``last.ckpt``. A run that is killed during the copy would lose it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            RunError: If writing fails; an older file with the same name is kept.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            with replaced(path) as file, file.open("wb") as stream:
                torch.save(checkpoint, stream)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else _cause(error)
            if reason is None:
                raise
            raise RunError(
                f"checkpoint {path} could not be written ({reason}), and an older file of that name is kept: free some"
                " space, or write to another folder with --run_dir"
            ) from error


def _cause(error: BaseException) -> str | None:
    """Return the operating system's reason for an error of torch; None if there is none."""
    inner = error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, OSError):
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return None
