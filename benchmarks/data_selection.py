"""Cost of choosing samples with InfoBatch: the decision of an epoch, reading its indices, memory, and each step.

The decision is compared with one `numpy.random.permutation(N)` in the same process, turn by turn; scores are
lognormal, 72 % of them below the mean, half of which are left out. The step is one of `cifar_resnet20` at batch 128.
CPU seconds of one thread, medians.

    python benchmarks/data_selection.py
    python benchmarks/data_selection.py --write
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning_recipes.callbacks import InfoBatch  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.core.sampling import epoch_generator  # pyright: ignore[reportMissingImports]
from lightning_recipes.recipes import Classification  # pyright: ignore[reportMissingImports]
from rows import append, provenance
from torch.utils.data import DataLoader, TensorDataset

SIZES = [50_000, 1_281_167, 10_000_000]


def main() -> None:
    """Measure, print, and where asked append the rows to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40, help="steps of cifar_resnet20 that are timed")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="append the rows to results/data_selection*.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(memory(options.memory))
        return
    command = "python benchmarks/data_selection.py"
    for size in SIZES:
        row = {"samples": size, **provenance(command), **decision(size, options.repeats)}
        child = [sys.executable, __file__, "--memory", str(size)]
        row["bytes_per_sample"] = round(float(subprocess.check_output(child, text=True).splitlines()[-1]), 1)
        show(row)
        if options.write:
            append(row, "data_selection")
    row = {"network": "cifar_resnet20", "batch": 128, **provenance(command), **step(options.steps)}
    show(row)
    if options.write:
        append(row, "data_selection_step")


def decision(size: int, repeats: int) -> dict[str, Any]:
    """Seconds of decision with shuffle, and of reading the indices, as ratios to a permutation of N."""
    callback, loader = hosted(size)
    permutation, decided, read = [], [], []
    for epoch in range(1, repeats + 1):
        permutation.append(seconds(lambda: np.random.permutation(size)))
        decided.append(seconds(lambda epoch=epoch: callback._plan_of(epoch)))
        loader.sampler.epoch = epoch  # type: ignore[attr-defined]
        read.append(seconds(lambda: sum(1 for _ in loader.sampler)))
    base = statistics.median(permutation)
    return {
        "repeats": repeats,
        "permutation_s": round(base, 5),
        "decision_s": round(statistics.median(decided), 5),
        "decision_ratio": round(statistics.median(d / p for d, p in zip(decided, permutation, strict=True)), 2),
        "reading_s": round(statistics.median(read), 5),
    }


def memory(size: int) -> float:
    """Peak resident bytes per sample of scores, plan, losses and the reading of an epoch (Linux)."""
    hosted(1000)[0]._plan_of(1)  # loads what is loaded on first use
    Path("/proc/self/clear_refs").write_text("5")  # lowers the peak to what is resident now
    before = resident("VmRSS")
    callback, loader = hosted(size)
    callback._plan_of(1)
    loader.sampler.epoch = 1  # type: ignore[attr-defined]
    callback._prepare(torch.device("cpu"))
    callback._losses.zero_()  # type: ignore[union-attr]
    for _ in loader.sampler:
        pass
    callback._flush()
    return (resident("VmHWM") - before) / size


def resident(name: str) -> int:
    """Bytes of an entry of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def hosted(size: int) -> tuple[InfoBatch, DataLoader]:
    """InfoBatch in charge of a loader over N samples, as after its first epoch."""
    callback, trainer = InfoBatch(seed=0), Trainer(max_epochs=100, logger=False, enable_checkpointing=False)
    callback._trainer = trainer
    loader = callback._take_over(DataLoader(range(size), batch_size=128, shuffle=True))  # type: ignore[arg-type]
    # In pieces, so that the peak is that of the callback.
    for piece in callback.memory["scores"].split(100_000):
        piece.log_normal_(-1.5, 1.2, generator=epoch_generator(0, 0))
    return callback, loader


def step(steps: int) -> dict[str, Any]:
    """CPU seconds that the callback's hooks take of a training step."""
    spent: list[float] = []

    class Timed(InfoBatch):
        def on_train_batch_start(self, *args: Any) -> None:
            super().on_train_batch_start(*args) if args[-1] == 0 else spent.append(
                seconds(lambda: super(Timed, self).on_train_batch_start(*args))
            )

        def on_train_batch_end(self, *args: Any) -> None:
            spent.append(seconds(lambda: super(Timed, self).on_train_batch_end(*args)))

    model: LightningModule = Classification("cifar_resnet20", 10)
    data = TensorDataset(torch.randn(128 * steps, 3, 32, 32), torch.randint(10, (128 * steps,)))
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[Timed(delta=1.0)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.process_time()
    trainer.fit(model, DataLoader(data, 128, shuffle=True))
    total = time.process_time() - start
    done = trainer.global_step
    return {
        "steps": done,
        "step_ms": round(1000 * total / done, 2),
        "hooks_ms": round(1000 * sum(spent) / done, 4),
        "share_of_step": round(sum(spent) / total, 5),
    }


def seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def show(row: dict[str, Any]) -> None:
    """Print a row."""
    print("\n".join(f"{name:24}{value}" for name, value in row.items()), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
