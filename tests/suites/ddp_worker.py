"""One of two processes that train every row of settings together; run by test_ddp.py, not by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from helpers import trainer, weights
from settings import SETTINGS, VARIANTS


def main(folder: Path) -> None:
    """Train each row and write its weights and what it logged."""
    torch.set_num_threads(1)
    for setting in SETTINGS + VARIANTS:
        torch.manual_seed(0)
        model = setting.model()
        run = trainer(max_epochs=2, devices=2, strategy="ddp", callbacks=setting.callbacks())
        run.fit(model, setting.data(batch_size=16))
        result = {"weights": weights(model), "logged": dict(run.callback_metrics), "steps": run.global_step}
        torch.save(result, folder / f"{setting.name}-{run.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
