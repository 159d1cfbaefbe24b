"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to, and put the written file in the place of ``path`` at the end.

    The file is written in the same folder, synced to the disk and renamed. A program that is killed, a full disk or any
    other error leaves the old file as it was.

    Args:
        path: File to write; its folder must exist.

    Yields:
        The temporary path, which ends in ``.part``.

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
