"""A separate folder for each run, claimed before anything is built."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from ...modules.core.errors import InputError
from .processes import shared_by_processes
from .resume import newest_checkpoint

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Processes started by a strategy inherit this variable, and so use the folder of the first process.
_VARIABLE = "RECIPES_RUN"


class RunFolder:
    """Folder that only one command writes to.

    Args:
        command: ``fit``, ``test``, …
        name: Name of the recipe.
        root: Folder of all runs; None is ``runs``.
        exact: The folder itself, if the user named it.
        checkpoint: Checkpoint that the command starts from.
        resume: Resume the run in ``exact``, if there is one.

    Attributes:
        path: ``exact`` if given. Else ``<run of the checkpoint>/<command>/<time>`` for commands other than ``fit``, and
            ``<root>/<name>/<time>`` otherwise.
        checkpoint: The given one, or the newest of the resumed run.

    Raises:
        InputError: If ``exact`` has a run already or another command is writing to it, the folder is not writable, or
            ``resume`` is given without ``exact`` or with ``checkpoint``.
    """

    def __init__(
        self,
        command: str,
        *,
        name: str,
        root: str | None = None,
        exact: str | None = None,
        checkpoint: str | None = None,
        resume: bool = False,
    ) -> None:
        if resume and exact is None:
            raise InputError("--resume goes on in the folder of a run: name it with --run_dir")
        if resume and checkpoint is not None:
            raise InputError(f"--resume takes the newest checkpoint of run_dir: leave out ckpt_path {checkpoint}")
        self.checkpoint = checkpoint
        self.resumes = resume
        self._created: list[Path] = []
        self._was_empty = False
        self._lock: int | None = None
        self._claimed: Path | None = None
        trained = Path(checkpoint).parent.parent if checkpoint else None
        now = time.strftime("%Y-%m-%d_%H-%M-%S")
        if exact is not None:
            self.path = Path(exact)
        elif command != "fit" and trained is not None and (trained / "recipe.yaml").is_file():
            self.path = trained / command / now
        else:
            self.path = Path(root or "runs") / name / now
        if rank_zero_only.rank == 0:
            shared_by_processes(lambda: self._claim(is_named=exact is not None))
            os.environ[_VARIABLE] = json.dumps(self._choice())
        else:
            folder, self.checkpoint = json.loads(os.environ.get(_VARIABLE) or "null") or shared_by_processes(None)
            self.path = Path(folder)

    def _choice(self) -> list[str | None]:
        return [str(self.path), self.checkpoint]

    def _claim(self, *, is_named: bool) -> list[str | None]:
        try:
            self._make(is_named=is_named)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(
                f"cannot write to the run folder {self.path} ({error.strerror}): name another with --run_dir"
            ) from None
        try:
            self._take(is_named=is_named)
            if self.resumes:
                self.checkpoint = newest_checkpoint(self.path)
        except InputError:
            self.close(started=False)
            raise
        return self._choice()

    def _make(self, *, is_named: bool) -> None:
        """Create the folder. If it exists and the user did not name it, take another name."""
        self._created = [path for path in self.path.parents if not path.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        first = self.path.name
        for number in itertools.count(2):
            try:
                self.path.mkdir()
            except FileExistsError:
                if not is_named:  # another run has taken it
                    self.path = self.path.with_name(f"{first}_{number}")
                    continue
                self._was_empty = not any(self.path.iterdir())
            else:
                self._created.insert(0, self.path)
            return

    def _take(self, *, is_named: bool) -> None:
        """Lock the folder until `close`."""
        place = self.path.resolve()
        try:
            if place in _CLAIMED:
                raise BlockingIOError
            if fcntl is not None:
                self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR)
                # A lock of this process only: surviving workers of a killed run do not hold it.
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._created = []
            raise InputError(
                f"run_dir {self.path} is being written to by another command: name another folder, or wait for its end"
            ) from None
        _CLAIMED.add(place)
        self._claimed = place
        if is_named and not self.resumes and (self.path / "recipe.yaml").exists():
            raise InputError(
                f"run_dir {self.path} holds a run already, which is not overwritten: name another folder, or go on with"
                " that run by --resume"
            )

    def close(self, *, started: bool) -> None:
        """Release the folder. If the command never started, restore its state from before.

        Args:
            started: Whether there are results to keep.
        """
        if self._claimed is not None:
            with contextlib.suppress(OSError):
                (self.path / _LOCK).unlink()
            _CLAIMED.discard(self._claimed)
            self._claimed = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if started or (self.path / "recipe.yaml").exists():
            return
        if self._was_empty:
            for path in self.path.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self._created and self._created[0] == self.path:
            shutil.rmtree(self.path, ignore_errors=True)
        for parent in self._created:
            # Another run may use the parent folder by now.
            with contextlib.suppress(OSError):
                parent.rmdir()


_LOCK = ".lock"
_CLAIMED: set[Path] = set()  # by this process, as its own lock would not stop it
