"""Adversarial attacks on images, and parts for adversarial training."""

from .n_fgsm import NFGSM
from .pgd import PGD, Loss
from .robustness import Robustness, load_autoattack, masking_signs, robustness
from .second_batch_norm import SecondBatchNorm

__all__ = [
    "NFGSM",
    "PGD",
    "Loss",
    "Robustness",
    "SecondBatchNorm",
    "load_autoattack",
    "masking_signs",
    "robustness",
]
