"""What every row of results says about where it came from."""

from __future__ import annotations

import csv
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parent.parent / "results"


def provenance(command: str) -> dict[str, Any]:
    """Date, commit ("+" behind it for uncommitted changes), command, hardware and torch version.

    Args:
        command: The command that prints the row, without places on this machine.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if changed else ""),
        "command": command,
        "hardware": hardware(),
        "torch": torch.__version__,
    }


def hardware() -> str:
    """The GPU if there is one, or the processor and its number of cores; never the machine's name."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def append(row: Mapping[str, Any], name: str) -> Path:
    """Add a row to ``results/<name>.csv``, which must have the same columns if it exists.

    Raises:
        ValueError: If the columns differ.
    """
    path = RESULTS / f"{name}.csv"
    if path.exists():
        with path.open(newline="") as file:
            columns = next(csv.reader(file))
        if columns != list(row):
            raise ValueError(f"{path.name} has the columns {columns}, the row has {list(row)}")
    new = not path.exists()
    path.parent.mkdir(exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    return path
