"""Local-learning heads: what trains each module of a network that is cut into gradient-isolated ones."""

from ._base import Auxiliary, Cut, LocalBatch, LocalHead
from .auglocal import AugLocal, auglocal_depths, auglocal_units
from .dgl import DGL

__all__ = ["DGL", "AugLocal", "Auxiliary", "Cut", "LocalBatch", "LocalHead", "auglocal_depths", "auglocal_units"]
