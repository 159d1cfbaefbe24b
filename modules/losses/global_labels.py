"""Fusing a sample's teacher probabilities with their mean over its class."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..core.checks import check, positive
from ..core.errors import InputError
from ._logits import LogitLoss, same_classes, softened_cross_entropy
from .ats import ats_probabilities


def class_means(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean of the teacher's probabilities per class.

    Args:
        probabilities: Shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.

    Returns:
        Shape ``(C, C)``; the row of a class without samples is its one-hot vector.
    """
    classes = probabilities.shape[1]
    counts = labels.bincount(minlength=classes).unsqueeze(1)
    sums = probabilities.new_zeros(classes, classes).index_add_(0, labels, probabilities)
    return torch.where(counts > 0, sums / counts.clamp(min=1), torch.eye(classes).to(sums))


def fuse_global_labels(probabilities: Tensor, labels: Tensor, means: Tensor, *, ratio: float) -> Tensor:
    """(1 - ratio) times a sample's probabilities plus ratio times the mean of its class.

    Our reading of "fusing global information" in https://arxiv.org/abs/2405.13078. Only its abstract was at hand; that
    there is such a blend is not certain.

    Args:
        probabilities: The teacher's, by any temperature, shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        means: Mean probabilities per class, shape ``(C, C)``, as `class_means` gives them for the training images.
        ratio: Share of the mean, in [0, 1].

    Returns:
        Probabilities, shape ``(N, C)``; rows sum to 1.
    """
    return (1 - ratio) * probabilities + ratio * means[labels]


class GlobalLabels(LogitLoss):
    """`ATS` with labels fused with the labels of their class, after https://arxiv.org/abs/2405.13078.

    Our reading of the paper; see `fuse_global_labels`. Like `ATS` it refuses Mixup and CutMix.

    Args:
        logits: File of the teacher's logits on the training images, written by ``recipes temperatures``.
        ratio: Share of the class's mean (ours; the paper's is not known to us).
        tau_true: The teacher's temperature of the true class.
        tau_wrong: The teacher's temperature of all other classes; the same value for both is one for all.
        tau_student: Temperature of the student.

    Raises:
        InputError: If the file is missing or of another kind, ``ratio`` lies outside [0, 1], or a temperature is not
            positive.
    """

    ce_weight = kd_weight = 0.5

    accepts_soft_labels = False
    means: Tensor

    def __init__(
        self,
        logits: str,
        ratio: float = 0.5,
        tau_true: float = 4.0,
        tau_wrong: float = 2.0,
        tau_student: float = 1.0,
    ) -> None:
        super().__init__()
        positive(tau_true=tau_true, tau_wrong=tau_wrong, tau_student=tau_student)
        check(0 <= ratio <= 1, "ratio", ratio, "in [0, 1]")
        if not Path(logits).is_file():
            raise InputError(f"logits {logits} does not exist: `recipes temperatures` writes it")
        try:
            file = safetensors.torch.load_file(logits)
            teacher_logits, labels = file["logits"], file["labels"]
        except (SafetensorError, KeyError) as error:
            raise InputError(f"logits {logits} holds no logits and labels: `recipes temperatures` writes it") from error
        self.ratio = ratio
        self.tau_true = tau_true
        self.tau_wrong = tau_wrong
        self.tau_student = tau_student
        probabilities = ats_probabilities(teacher_logits, labels, tau_true=tau_true, tau_wrong=tau_wrong)
        self.register_buffer("means", class_means(probabilities, labels), persistent=False)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Losses, shape ``(N,)``."""
        same_classes(student_logits, teacher_logits)
        probabilities = ats_probabilities(teacher_logits, labels, tau_true=self.tau_true, tau_wrong=self.tau_wrong)
        same_classes(probabilities[:1], self.means[:1])
        probabilities = fuse_global_labels(probabilities, labels, self.means, ratio=self.ratio)
        return softened_cross_entropy(student_logits, probabilities, self.tau_student)
