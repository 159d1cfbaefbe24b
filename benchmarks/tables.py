"""Rows of results as Markdown tables."""

from __future__ import annotations

import csv
import math
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def rows(name: str) -> list[dict[str, str]]:
    """The rows of ``results/<name>.csv``."""
    path = ROOT / "results" / f"{name}.csv"
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(header: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def accuracy(row: dict[str, str]) -> str:
    """Mean, and standard deviation where there are several seeds."""
    spread = float(row["test_accuracy_std"])
    return f"{float(row['test_accuracy_mean']):.4f}" + ("" if math.isnan(spread) else f" ± {spread:.4f}")
