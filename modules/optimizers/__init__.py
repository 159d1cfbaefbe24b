"""Optimizers and parameter groups."""

from .lars import LARS
from .parameter_groups import parameter_groups

__all__ = ["LARS", "parameter_groups"]
