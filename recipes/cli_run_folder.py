"""One folder for each run, chosen before anything is built."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from ..modules.errors import InputError

# Processes that a strategy starts inherit it, and so agree with the first on the folder.
_VARIABLE = "RECIPES_RUN_DIR"


def choose_run_dir(command: str, *, name: str, root: str | None, exact: str | None, checkpoint: str | None) -> Path:
    """The folder that a command writes to; nothing is created yet.

    Args:
        command: ``fit``, ``test``, …
        name: Name of the recipe.
        root: Folder of all runs; None is ``runs``.
        exact: The folder itself, if the user named it.
        checkpoint: Checkpoint that the command starts from.

    Returns:
        ``exact``; else, for commands other than ``fit``, ``<run of the checkpoint>/<command>/<time>``; else
        ``<root>/<name>/<time>``.

    Raises:
        InputError: If ``exact`` holds a run already.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" and _VARIABLE in os.environ:
        return Path(os.environ[_VARIABLE])
    if exact is not None:
        folder = Path(exact)
        if (folder / "recipe.yaml").exists():
            raise InputError(f"run_dir {folder} holds a run already, which is not overwritten: name another folder")
    else:
        trained = Path(checkpoint).parent.parent if checkpoint else None
        beside = command != "fit" and trained is not None and (trained / "recipe.yaml").is_file()
        parent = trained / command if beside and trained else Path(root or "runs") / name
        now = time.strftime("%Y-%m-%d_%H-%M-%S")
        folder = parent / now
        number = 2
        while folder.exists():
            folder = parent / f"{now}_{number}"
            number += 1
    os.environ[_VARIABLE] = str(folder)
    return folder


def make_run_dir(folder: Path) -> list[Path]:
    """Create the folder.

    Returns:
        The folders that were not there before, the innermost first.

    Raises:
        InputError: If it cannot be written to.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to the run folder {folder} ({error.strerror}): name another with --run_dir"
        ) from None
    return created


def remove_unstarted(created: list[Path]) -> None:
    """Remove what `make_run_dir` created for a run that ended before it started, and has no ``recipe.yaml`` yet."""
    if not created or (created[0] / "recipe.yaml").exists():
        return
    shutil.rmtree(created[0], ignore_errors=True)
    for parent in created[1:]:
        # Another run may be there by now.
        with contextlib.suppress(OSError):
            parent.rmdir()
