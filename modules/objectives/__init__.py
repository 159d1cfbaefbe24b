"""What a recipe minimises: one loss per sample, from logits, labels and what is known about the batch."""

from ._base import Objective
from .cross_entropy import CrossEntropy
from .deit_lt import DeiTLT
from .distillation import Distillation
from .ltd import LTD
from .varied_cross_entropy import VariedCrossEntropy

__all__ = ["LTD", "CrossEntropy", "DeiTLT", "Distillation", "Objective", "VariedCrossEntropy"]
