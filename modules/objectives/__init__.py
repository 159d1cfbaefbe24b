"""Training objectives: one loss per sample, computed from logits, labels and a context of the batch."""

from ._base import Objective
from .cross_entropy import CrossEntropy
from .deit_lt import DeiTLT
from .distillation import Distillation
from .ltd import LTD
from .varied_cross_entropy import VariedCrossEntropy

__all__ = ["LTD", "CrossEntropy", "DeiTLT", "Distillation", "Objective", "VariedCrossEntropy"]
