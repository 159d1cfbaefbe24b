"""Matching losses for dataset distillation: pure functions, and small classes used by recipes."""

from ..losses.attention_transfer import attention_maps
from ._base import ClassBatch, Matching
from .attention import attention_matching_loss
from .datadam import DataDAM
from .distribution import DistributionMatching, distribution_matching_loss
from .gradient import GradientMatching, gradient_matching_loss

__all__ = [
    "ClassBatch",
    "DataDAM",
    "DistributionMatching",
    "GradientMatching",
    "Matching",
    "attention_maps",
    "attention_matching_loss",
    "distribution_matching_loss",
    "gradient_matching_loss",
]
