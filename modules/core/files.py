"""Atomic file writing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to, then move the written file to ``path``.

    The file is written to the same folder, synced to the disk and renamed. If the program is killed, the disk is full
    or any other error occurs, the old file stays unchanged.

    Args:
        path: File to write; its folder must exist.

    Yields:
        The temporary path, ending in ``.part``.

    Examples:
        >>> with replaced("figures.json") as file:
        ...     _ = file.write_text("{}")
        >>> Path("figures.json").read_text()
        '{}'
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(0o666 & ~_umask())
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
