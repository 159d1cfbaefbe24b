"""Versions of the packages and code that a run depends on."""

from __future__ import annotations

import functools
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2]


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of this project, torch and Lightning, and the commit if the code is a git checkout.

    ``+changes`` after the commit means that tracked files differ from it.
    """
    found = {}
    for name in ("lightning-recipes", "torch", "lightning"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # imported from a folder that was not installed
            continue
    if (_FOLDER / ".git").exists():
        commit, changes = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
        if commit:
            found["commit"] = commit + ("+changes" if changes else "")
    return found


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(_FOLDER), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
