"""Histograms for wandb and TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

BINS = 64


def log_histogram(loggers: Iterable[Logger], name: str, values: Tensor, step: int) -> None:
    """Log the distribution of finite CPU values ``(N,)`` to wandb and TensorBoard; other loggers are skipped."""
    takers = [logger for logger in loggers if isinstance(logger, (WandbLogger, TensorBoardLogger))]
    if not takers or not len(values):
        return
    array = values.numpy()
    counts, edges = np.histogram(array, BINS)
    for logger in takers:
        if isinstance(logger, WandbLogger):
            import wandb

            histogram = wandb.Histogram(np_histogram=(counts, edges))
            logger.experiment.log({name: histogram, "trainer/global_step": step})
        else:
            logger.experiment.add_histogram_raw(
                name,
                min=float(array.min()),
                max=float(array.max()),
                num=len(array),
                sum=float(array.sum(dtype=np.float64)),
                sum_squares=float(np.square(array, dtype=np.float64).sum()),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=counts.tolist(),
                global_step=step,
            )
