"""Callbacks that work with any LightningModule."""

from .data_selection import DataSelection
from .finite_loss import FiniteLoss
from .graceful_interrupt import GracefulInterrupt
from .infobatch import InfoBatch, infobatch_plan
from .prediction_writer import PredictionWriter
from .progress_bar import ImageProgressBar
from .random_subset import RandomSubset
from .run_summary import RunSummary

__all__ = [
    "DataSelection",
    "FiniteLoss",
    "GracefulInterrupt",
    "ImageProgressBar",
    "InfoBatch",
    "PredictionWriter",
    "RandomSubset",
    "RunSummary",
    "infobatch_plan",
]
