"""Callbacks that work with any LightningModule."""

from .finite_loss import FiniteLoss
from .graceful_interrupt import GracefulInterrupt
from .prediction_writer import PredictionWriter
from .progress_bar import ImageProgressBar
from .run_summary import RunSummary

__all__ = ["FiniteLoss", "GracefulInterrupt", "ImageProgressBar", "PredictionWriter", "RunSummary"]
