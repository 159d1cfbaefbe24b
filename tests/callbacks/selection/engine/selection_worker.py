"""One of two processes that prune together; run by test_data_selection_resume.py, not by hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from foreign import Scores, Stranger, fit, loader
from helpers import Snapshots, weights
from lightning.pytorch import seed_everything
from lightning_recipes.callbacks import InfoBatch


def main(folder: Path) -> None:
    """Train, then resume from the end and from the middle of epochs, and write what was seen."""
    torch.set_num_threads(1)
    options = {"max_epochs": 4, "devices": 2, "strategy": "ddp"}

    def onecycle(optimizer, steps):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps)

    for size in (96, 97):
        seed_everything(5, verbose=False)
        callback, model, points = InfoBatch(delta=0.8), Stranger(size), folder / str(size)
        scores = Scores(callback)
        fit(model, loader(size), callback, scores, **options)
        result = {
            "scores": scores.before,
            "steps": [(step.epoch, step.indices, step.losses) for step in model.steps],
            "resumed": {},
        }
        whole = Stranger(size, schedule=onecycle)
        fit(whole, loader(size), InfoBatch(delta=0.8), Snapshots(points), **options)
        first, second = len(whole.epoch(0)), len(whole.epoch(1))
        names = [f"1-{first + 2}-batch", f"1-{first + second}-validation", f"0-{first}-epoch", f"0-{first - 2}-batch"]
        for name in names[: 4 if size == 97 else 2]:
            resumed = Stranger(size, schedule=onecycle)
            fit(resumed, loader(size), InfoBatch(delta=0.8), ckpt_path=points / f"{name}.ckpt", **options)
            rest = [step.indices for step in whole.steps[-len(resumed.steps) :]]
            same = [step.indices for step in resumed.steps] == rest
            same &= all(torch.equal(value, weights(whole)[key]) for key, value in weights(resumed).items())
            result["resumed"][name] = same and resumed.lr_schedulers().last_epoch == whole.lr_schedulers().last_epoch
        torch.save(result, folder / f"{size}-{os.environ['LOCAL_RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
