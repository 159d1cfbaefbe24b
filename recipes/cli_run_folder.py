"""One folder for each run, made before anything is built."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import time
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from ..modules.errors import InputError

# Processes that a strategy starts inherit it, and so agree with the first on the folder.
_VARIABLE = "RECIPES_RUN_DIR"


def make_run_dir(
    command: str, *, name: str, root: str | None, exact: str | None, checkpoint: str | None
) -> tuple[Path, list[Path]]:
    """Create the folder that a command writes to, which no other run has.

    Args:
        command: ``fit``, ``test``, …
        name: Name of the recipe.
        root: Folder of all runs; None is ``runs``.
        exact: The folder itself, if the user named it.
        checkpoint: Checkpoint that the command starts from.

    Returns:
        The folder: ``exact``; else, for commands other than ``fit``, ``<run of the checkpoint>/<command>/<time>``; else
        ``<root>/<name>/<time>``. And the folders that were not there before, the innermost first.

    Raises:
        InputError: If ``exact`` holds a run already, or the folder cannot be written to.
    """
    trained = Path(checkpoint).parent.parent if checkpoint else None
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    if exact is not None:
        folder = Path(exact)
    elif command != "fit" and trained is not None and (trained / "recipe.yaml").is_file():
        folder = trained / command / now
    else:
        folder = Path(root or "runs") / name / now
    if rank_zero_only.rank != 0:
        return Path(os.environ.get(_VARIABLE, folder)), []
    if (folder / "recipe.yaml").exists() and exact is not None:
        raise InputError(f"run_dir {folder} holds a run already, which is not overwritten: name another folder")
    created = [path for path in folder.parents if not path.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(2):
            try:
                folder.mkdir()
            except FileExistsError:
                if exact is None:  # another run has it, perhaps since a moment ago
                    folder = folder.with_name(f"{now}_{number}")
                    continue
            else:
                created.insert(0, folder)
            break
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to the run folder {folder} ({error.strerror}): name another with --run_dir"
        ) from None
    os.environ[_VARIABLE] = str(folder)
    return folder, created


def remove_unstarted(created: list[Path]) -> None:
    """Remove what `make_run_dir` created for a run that ended before it started, and has no ``recipe.yaml`` yet."""
    if not created or (created[0] / "recipe.yaml").exists():
        return
    shutil.rmtree(created[0], ignore_errors=True)
    for parent in created[1:]:
        # Another run may be there by now.
        with contextlib.suppress(OSError):
            parent.rmdir()
