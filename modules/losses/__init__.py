"""Losses per sample: pure functions, and `nn.Module` classes that call them."""

from ._features import FeatureLoss
from ._logits import LogitLoss
from .ats import ATS, ats_loss, ats_probabilities
from .attention_transfer import AttentionTransfer, attention_maps, attention_transfer_loss
from .class_balanced import class_balanced_weights
from .crd import CRD, contrast_loss
from .dist import DIST, dist_loss
from .dkd import DKD, dkd_loss
from .fitnet import FitNet, fitnet_loss
from .global_labels import GlobalLabels, class_means, fuse_global_labels
from .isats import ISATS, isats_probabilities
from .kd import KD, kd_loss
from .lskd import LSKD, standardize_logits
from .mart import mart_loss, mart_terms
from .reviewkd import ReviewKD, pyramid_loss
from .rkd import RKD, rkd_loss
from .soft_cross_entropy import soft_cross_entropy
from .sp import SP, sp_loss
from .wrong_classes import derived_average, wrong_class_variance

__all__ = [
    "ATS",
    "CRD",
    "DIST",
    "DKD",
    "ISATS",
    "KD",
    "LSKD",
    "RKD",
    "SP",
    "AttentionTransfer",
    "FeatureLoss",
    "FitNet",
    "GlobalLabels",
    "LogitLoss",
    "ReviewKD",
    "ats_loss",
    "ats_probabilities",
    "attention_maps",
    "attention_transfer_loss",
    "class_balanced_weights",
    "class_means",
    "contrast_loss",
    "derived_average",
    "dist_loss",
    "dkd_loss",
    "fitnet_loss",
    "fuse_global_labels",
    "isats_probabilities",
    "kd_loss",
    "mart_loss",
    "mart_terms",
    "pyramid_loss",
    "rkd_loss",
    "soft_cross_entropy",
    "sp_loss",
    "standardize_logits",
    "wrong_class_variance",
]
