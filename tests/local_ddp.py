"""One of two processes that train modules apart, in double precision; run by suites/ddp_worker.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers import trainer, weights
from lightning_recipes.modules.auxiliary import DGL, MAN, AugLocal, FeatureReconstruction
from lightning_recipes.recipes import LocalLearning
from settings import digits, local

# No batch normalisation and no loss that compares the images of a batch.
CASES: dict[str, tuple[Callable[[], LocalLearning], dict[str, Any]]] = {
    "dgl": (lambda: local(DGL("linear")), {}),
    "dgl step": (lambda: local(DGL("linear"), step_per_module=True), {}),
    "dgl clip": (lambda: local(DGL("linear")), {"gradient_clip_val": 0.05}),
    "dgl accumulate": (lambda: local(DGL("linear")), {"accumulate_grad_batches": 2}),
    "auglocal": (lambda: local(AugLocal(1, merge_last=False)), {}),
    "auglocal step": (
        lambda: local(AugLocal(1, merge_last=False), step_per_module=True),
        {"gradient_clip_val": 0.05},
    ),
    "man": (lambda: local(MAN(DGL("linear"), momentum=0.9)), {}),
    "feature reconstruction": (lambda: local(FeatureReconstruction()), {}),
}


def train(case: str, batch_size: int, seed: int = 0, **options: Any) -> dict[str, torch.Tensor]:
    """Weights after six steps."""
    build, chosen = CASES[case]
    torch.manual_seed(seed)
    model = build()
    options = {**chosen, **options}
    data = digits(batch_size=batch_size // options.get("accumulate_grad_batches", 1))
    run = trainer(max_epochs=2, limit_val_batches=0, precision="64-true", **options)
    run.fit(model, data)
    assert run.global_step == 6
    return weights(model)


def main(folder: Path) -> None:
    """Train each case and write its weights. The second process begins with other ones, which must not matter."""
    rank = int(os.environ["LOCAL_RANK"])
    for case in CASES:
        torch.save(train(case, 16, seed=rank, devices=2, strategy="ddp"), folder / f"local {case}-{rank}.pt")
