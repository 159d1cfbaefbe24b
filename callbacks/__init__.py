"""Callbacks that work with any LightningModule."""

from ..modules.exact_resume import ExactResume
from .auto_attack import AutoAttack
from .awp import AWP
from .run.finite_loss import FiniteLoss
from .run.graceful_interrupt import GracefulInterrupt
from .run.mean_of_losses import MeanOfLosses
from .run.prediction_writer import PredictionWriter
from .run.progress_bar import ImageProgressBar
from .run.run_summary import RunSummary
from .selection.el2n import EL2N
from .selection.engine.data_selection import DataSelection
from .selection.epsilon_greedy import EpsilonGreedy
from .selection.forgetting import Forgetting
from .selection.infobatch import InfoBatch, infobatch_plan
from .selection.keep_hardest import KeepHardest
from .selection.random_subset import RandomSubset
from .selection.seta import SeTa
from .selection.ucb import UCB

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
