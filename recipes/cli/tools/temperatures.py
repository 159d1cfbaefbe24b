"""`recipes temperatures`: effect of ATS on a teacher for each pair of temperatures, as table, CSV and plot."""

from __future__ import annotations

import csv
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from ....modules.core.errors import InputError
from ....modules.core.files import replaced
from ....modules.teachers import temperature_grid
from ..save_recipe import SaveRecipe
from .logits import collect_logits


def temperatures(
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule | None,
    *,
    ckpt_path: str | None,
    tau_true: list[float],
    tau_wrong: list[float],
    part: Literal["train", "val"],
) -> None:
    """Write and print the `temperature_grid` of a model; see `RecipesTrainer.temperatures`."""
    folder = Path(trainer.default_root_dir)
    files = {name: folder / name for name in ("logits.safetensors", "temperatures.csv", "temperatures.png")}
    for file in files.values():
        if file.exists():
            raise InputError(f"{file} exists already, which is not overwritten: choose another folder with --run_dir")
    # Refuse an invalid grid before the pass over the data.
    temperature_grid(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), tau_true=tau_true, tau_wrong=tau_wrong)
    logits, labels = collect_logits(trainer, model, data, part=part, ckpt_path=ckpt_path)
    rows = temperature_grid(logits, labels, tau_true=tau_true, tau_wrong=tau_wrong)
    _print(rows)
    print(f"means over {len(labels):,} {part} images")
    if trainer.fast_dev_run or trainer.barebones:  # type: ignore[attr-defined]
        return
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SaveRecipe):  # records data and augmentation
            callback.write(trainer)
    with replaced(files["temperatures.csv"]) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"the rows are in {files['temperatures.csv']}")
    facts = {
        "logits": "of the network, float32 (N, C)",
        "labels": "class indices, int64 (N,), in the same order",
        "part": part,
        "checkpoint": ckpt_path or "",
        "class_names": json.dumps([str(name) for name in getattr(data, "class_names", [])]),
    }
    with replaced(files["logits.safetensors"]) as unfinished:
        safetensors.torch.save_file({"logits": logits, "labels": labels}, unfinished, metadata=facts)
    print(f"the logits, for GlobalLabels, are in {files['logits.safetensors']}")
    if find_spec("matplotlib"):
        _plot(rows, files["temperatures.png"])
        print(f"the plot is {files['temperatures.png']}")
    else:
        print("for a plot: pip install 'lightning-recipes[plots]'")


def _print(rows: list[dict[str, float]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{value:g}" if name.startswith("tau") else f"{value:.2g}" for name, value in row.items()))
    # In a file, each row is one line.
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def _plot(rows: list[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = {"derived_variance": "variance of the wrong classes", "left": "share that left the label"}
    for axes, (name, label) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for true in sorted({row["tau_true"] for row in rows}):
            line = sorted((row["tau_wrong"], row[name]) for row in rows if row["tau_true"] == true)
            axes.plot(*zip(*line, strict=True), marker="o", label=f"tau_true {true:g}")
        axes.set_xlabel("tau_wrong")
        axes.set_ylabel(label)
    if any(row["derived_variance"] > 0 for row in rows):  # with two classes it is always 0
        figure.axes[0].set_yscale("log")
    figure.axes[0].legend()
    figure.savefig(path, dpi=150)
