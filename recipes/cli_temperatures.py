"""`recipes temperatures`: what ATS makes of a teacher at each pair of temperatures, as table, CSV and plot."""

from __future__ import annotations

import csv
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor

from ..modules.errors import InputError
from ..modules.temperatures import temperature_grid


def temperatures(
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule,
    *,
    tau_true: list[float],
    tau_wrong: list[float],
    part: Literal["train", "val"],
) -> None:
    """Write and print what `temperature_grid` says of a model; see `RecipesTrainer.temperatures`."""
    if trainer.world_size > 1:
        raise InputError(f"temperatures runs in one process, but there are {trainer.world_size}: --trainer.devices 1")
    folder = Path(trainer.default_root_dir)
    files = {name: folder / name for name in ("logits.safetensors", "temperatures.csv", "temperatures.png")}
    for file in files.values():
        if file.exists():
            raise InputError(f"{file} exists already, which is not overwritten: choose another folder with --run_dir")
    # A wrong grid is refused before the pass.
    temperature_grid(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), tau_true=tau_true, tau_wrong=tau_wrong)
    logits, labels = _answers(trainer, model, data, part)
    rows = temperature_grid(logits, labels, tau_true=tau_true, tau_wrong=tau_wrong)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"logits": "of the network", "labels": "class indices", "part": part}
    safetensors.torch.save_file({"logits": logits, "labels": labels}, files["logits.safetensors"], metadata=facts)
    with files["temperatures.csv"].open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    _print(rows)
    print(f"{len(labels):,} {part} images; the rows are in {files['temperatures.csv']}")
    print(f"the logits, for GlobalLabels, are in {files['logits.safetensors']}")
    if find_spec("matplotlib"):
        _plot(rows, files["temperatures.png"])
        print(f"the plot is {files['temperatures.png']}")
    else:
        print("for a plot: pip install 'lightning-recipes[plots]'")


def _answers(trainer: Trainer, model: LightningModule, data: LightningDataModule, part: str) -> tuple[Tensor, Tensor]:
    """Logits ``(N, C)`` of one pass over a part of the data, and labels ``(N,)``."""
    device = trainer.strategy.root_device
    model.to(device).eval()
    data.trainer = trainer
    data.prepare_data()
    data.setup("fit")
    loader: Any = data.train_dataloader() if part == "train" else data.val_dataloader()
    logits, labels = [], []
    for batch in loader:
        batch = data.transfer_batch_to_device(batch, device, 0)
        images, targets = data.on_after_batch_transfer(batch, 0)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            answer = model(images)
        if not isinstance(answer, Tensor) or answer.ndim != 2 or targets.ndim != 1:
            raise InputError(
                "temperatures needs a model that gives logits (N, C), and class indices (N,) as labels:"
                f" {type(model).__name__} gives {_shape(answer)} for labels {_shape(targets)}"
            )
        logits.append(answer.float().cpu())
        labels.append(targets.long().cpu())
    return torch.cat(logits), torch.cat(labels)


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _print(rows: list[dict[str, float]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{value:g}" if name.startswith("tau") else f"{value:.2g}" for name, value in row.items()))
    # Piped into a file, a row stays one line.
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
    figure.axes[0].set_yscale("log")
    figure.axes[0].legend()
    figure.savefig(path, dpi=150)
