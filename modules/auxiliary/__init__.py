"""Local-learning heads: auxiliary networks that train the gradient-isolated modules of a network."""

from ._base import Auxiliary, Cut, LocalBatch, LocalHead
from .auglocal import AugLocal, auglocal_depths, auglocal_units
from .dgl import DGL
from .feature_reconstruction import FeatureReconstruction
from .infopro import InfoPro, contrastive_loss
from .man import MAN, follow
from .predsim import PredSim, similarities

__all__ = [
    "DGL",
    "MAN",
    "AugLocal",
    "Auxiliary",
    "Cut",
    "FeatureReconstruction",
    "InfoPro",
    "LocalBatch",
    "LocalHead",
    "PredSim",
    "auglocal_depths",
    "auglocal_units",
    "contrastive_loss",
    "follow",
    "similarities",
]
