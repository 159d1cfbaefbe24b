"""Callbacks that work with any LightningModule."""

from .data_selection import DataSelection
from .epsilon_greedy import EpsilonGreedy
from .finite_loss import FiniteLoss
from .graceful_interrupt import GracefulInterrupt
from .infobatch import InfoBatch, infobatch_plan
from .prediction_writer import PredictionWriter
from .progress_bar import ImageProgressBar
from .random_subset import RandomSubset
from .run_summary import RunSummary
from .seta import SeTa
from .ucb import UCB

__all__ = [
    "UCB",
    "DataSelection",
    "EpsilonGreedy",
    "FiniteLoss",
    "GracefulInterrupt",
    "ImageProgressBar",
    "InfoBatch",
    "PredictionWriter",
    "RandomSubset",
    "RunSummary",
    "SeTa",
    "infobatch_plan",
]
