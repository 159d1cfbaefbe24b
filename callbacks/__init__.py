"""Callbacks that work with any LightningModule."""

from ..modules.exact_resume import ExactResume
from .auto_attack import AutoAttack
from .awp import AWP
from .data_selection import DataSelection
from .el2n import EL2N
from .epsilon_greedy import EpsilonGreedy
from .finite_loss import FiniteLoss
from .forgetting import Forgetting
from .graceful_interrupt import GracefulInterrupt
from .infobatch import InfoBatch, infobatch_plan
from .keep_hardest import KeepHardest
from .mean_of_losses import MeanOfLosses
from .prediction_writer import PredictionWriter
from .progress_bar import ImageProgressBar
from .random_subset import RandomSubset
from .run_summary import RunSummary
from .seta import SeTa
from .ucb import UCB

__all__ = [
    "AWP",
    "EL2N",
    "UCB",
    "AutoAttack",
    "DataSelection",
    "EpsilonGreedy",
    "ExactResume",
    "FiniteLoss",
    "Forgetting",
    "GracefulInterrupt",
    "ImageProgressBar",
    "InfoBatch",
    "KeepHardest",
    "MeanOfLosses",
    "PredictionWriter",
    "RandomSubset",
    "RunSummary",
    "SeTa",
    "infobatch_plan",
]
