"""DeiT-LT: train a vision transformer on long-tailed data, with a convolutional teacher for its distillation token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import check
from ..core.errors import InputError
from ..core.run_shares import check_epochs, in_epochs, warn_if_unreached
from ..losses import class_balanced_weights
from ._teacher_objective import TeacherObjective, TeacherOutput


class DeiTLT(TeacherObjective):
    """DeiT-LT (https://arxiv.org/abs/2404.02900): class token trained on labels, distillation token on a teacher.

    The loss is ``(1 - alpha) · CE(class head, label) + alpha · w · CE(distillation head, t)``. t is the teacher's
    predicted class for the same augmented and mixed image. The student has two classifiers, as timm's
    ``deit_*_distilled_*`` networks do; the network averages their logits.

    From ``drw_epoch`` on, w is the inverse of the effective number of training images of class t, divided by the
    batch's mean weight (deferred re-weighting). Before, w is 1. Unmixed labels are then no longer smoothed. The teacher
    was trained with weak augmentation and predicts strongly augmented images; this makes the distillation token an
    expert for rare classes. A recipe logs the terms ``cls`` and ``dist``, unweighted.

    Args:
        teacher: A trained network, or a list of them: a checkpoint of a recipe (``.ckpt``), a file of `recipes export`
            (``.safetensors``), a timm name or folder (``local-dir:FOLDER``), or a module. A name loads its pretrained
            weights. A module is frozen and moved in place.
        alpha: Weight of the distillation token's loss; the class token's loss has weight ``1 - alpha``. All defaults
            here are the authors'.
        drw_epoch: Start of the re-weighting: a share of the run, e.g. 0.9, or the number of epochs before it, e.g.
            1100; None is never. The authors use 1100 of 1200 on CIFAR.
        drw_beta: Beta of the effective number (`class_balanced_weights`).
        class_counts: Number of training images per class; None uses the datamodule's.
        label_smoothing: Share of each label's mass that is spread over all classes, for the class token.
        heads: Names of the student's classifiers for the class token and the distillation token.
        teacher_weights: Weights of the teachers in the mean of their logits; None weighs all teachers equally.
        teacher_args: Further arguments of a teacher given by name, or a list with one entry per teacher.
            ``{checkpoint_path: FILE}`` loads weights of any project; ``prefix`` is a common prefix of their names.
            ``mean`` and ``std`` are the statistics that the teacher's images were normalized with.
        teacher_image_size: Height and width in pixels that images are resized to for the teacher. None is the size in
            the teacher's file, or else the student's size.
        compile_teacher: Run the teacher through `torch.compile`.
        cache: Folder for the teacher's logits; see `Distillation`.

    Raises:
        InputError: If ``alpha``, ``label_smoothing`` or ``drw_epoch`` is out of its range. When the recipe is built, if
            the teacher cannot be read or does not fit, or the student has no such heads. With the first batch, if
            re-weighting is on and the numbers of training images are unknown.
    """

    def __init__(
        self,
        teacher: list[str | Path | nn.Module] | str | Path | nn.Module,
        *,
        alpha: float = 0.5,
        drw_epoch: int | float | None = None,
        drw_beta: float = 0.9999,
        class_counts: list[int] | None = None,
        label_smoothing: float = 0.1,
        heads: tuple[str, str] = ("head", "head_dist"),
        teacher_weights: list[float] | None = None,
        teacher_args: dict[str, Any] | list[dict[str, Any]] | None = None,
        teacher_image_size: int | None = None,
        compile_teacher: bool = False,
        cache: str | None = None,
    ) -> None:
        check(0 <= alpha <= 1, "alpha", alpha, "in [0, 1]")
        check(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "in [0, 1)")
        check(0 <= drw_beta < 1, "drw_beta", drw_beta, "in [0, 1)")
        check_epochs(drw_epoch=drw_epoch)
        super().__init__(
            teacher,
            teacher_weights=teacher_weights,
            teacher_args=teacher_args,
            teacher_image_size=teacher_image_size,
            compile_teacher=compile_teacher,
            cache=cache,
            student_layers=heads,
        )
        self.alpha = alpha
        self.drw_epoch = drw_epoch
        self.drw_beta = drw_beta
        self.label_smoothing = label_smoothing
        self._given_counts = class_counts
        self._weights: Tensor | None = None
        self._weighted: list[int] = []

    def attach(self, network: nn.Module, *, num_classes: int, in_chans: int, image_size: int | None) -> None:
        """Load the teacher and check both heads."""
        super().attach(network, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        if self._given_counts is not None and len(self._given_counts) != num_classes:
            raise InputError(f"class_counts must have {num_classes} numbers (num_classes) but is {self._given_counts}")
        if image_size is None:
            return
        outputs = self.try_student(network, torch.zeros(2, in_chans, image_size, image_size))
        for name, output in zip(self.student_layers, outputs, strict=True):
            if output.shape != (2, num_classes):
                raise InputError(
                    f"heads: {name} gives outputs of shape {tuple(output.shape)} for 2 images and not logits"
                    f" (2, {num_classes}): name two classifiers"
                )

    def check_run(self) -> None:
        """Warn if re-weighting starts after the end of the run."""
        super().check_run()
        warn_if_unreached(self.drw_epoch, self.run_epochs, name="drw_epoch", effect="no class is re-weighted", spare=1)

    def context(self, images: Tensor, labels: Tensor) -> TeacherOutput:
        """Return the teacher's outputs."""
        if self.drw_epoch is not None:
            counts = list(self._given_counts or self.class_counts or [])
            if counts and counts != self._weighted:
                self._weights = class_balanced_weights(counts, beta=self.drw_beta).to(images.device)
                self._weighted = counts
            elif not counts and self.training:
                raise InputError(
                    f"drw_epoch={self.drw_epoch} needs class_counts, the training images of each class, which this"
                    " data does not say: give them"
                )
        return super().context(images, labels)

    def forward(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> Tensor:
        """Return losses, shape ``(N,)``."""
        return self.parts(logits, labels, context)[0]

    def parts(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Return losses ``(N,)`` and the terms ``cls`` and ``dist``; ``logits``, the two heads' mean, are not used."""
        assert self.student is not None
        of_class, of_teacher = self.student.take()
        # There are no class counts during a test.
        reweighted = self._weights is not None and self.epoch >= in_epochs(self.drw_epoch or 0, self.run_epochs)
        smoothing = 0.0 if reweighted and labels.ndim == 1 else self.label_smoothing
        cls = F.cross_entropy(of_class, labels, reduction="none", label_smoothing=smoothing)
        seen = context.logits.argmax(1)
        dist = F.cross_entropy(of_teacher, seen, reduction="none")
        losses = (1 - self.alpha) * cls
        if reweighted and self._weights is not None:
            weights = self._weights.to(dist)[seen]
            # Divided by the sum of the batch's weights, as in PyTorch's weighted cross-entropy.
            # The sum is 0 if the teacher predicts only classes without images.
            share = len(weights) / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
            losses = losses + self.alpha * dist * weights * share
        else:
            losses = losses + self.alpha * dist
        return losses, {"cls": cls, "dist": dist}

    def extra_repr(self) -> str:
        """Return the arguments for the printed module."""
        return f"alpha={self.alpha}, drw_epoch={self.drw_epoch}, drw_beta={self.drw_beta}"
