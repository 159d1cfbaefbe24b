"""One of two processes that train every row of settings together; run by test_ddp.py, not by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import local_ddp
import torch
from helpers import trainer, weights
from lightning.pytorch import Callback
from settings import SETTINGS, VARIANTS


class Shared(Callback):
    """Counts the numbers that the processes keep alike, and those that the optimizer changes."""

    def on_train_start(self, trainer, pl_module):
        self.counts = [
            sum(value.numel() for value in values)
            for values in (
                trainer.strategy.model.parameters(),
                trainer.strategy.model.buffers(),
                [value for group in trainer.optimizers[0].param_groups for value in group["params"]],
            )
        ]


def main(folder: Path) -> None:
    """Train each row, and each case of local learning, and write its weights and what it logged."""
    torch.set_num_threads(1)
    for setting in SETTINGS + VARIANTS:
        torch.manual_seed(0)
        model = setting.model()
        shared = Shared()
        run = trainer(max_epochs=2, devices=2, strategy="ddp", callbacks=[*setting.callbacks(), shared])
        run.fit(model, setting.data(batch_size=16))
        result = {"weights": weights(model), "logged": dict(run.callback_metrics), "steps": run.global_step}
        result["shared"] = shared.counts
        torch.save(result, folder / f"{setting.name}-{run.global_rank}.pt")
    local_ddp.main(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
