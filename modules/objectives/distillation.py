"""Distillation: cross-entropy beside any loss against a frozen teacher."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import not_negative
from ..errors import InputError
from ..losses import KD, FeatureLoss, LogitLoss
from ._taught import Taught, TeacherOutput


class Distillation(Taught):
    """``ce_weight`` times the cross-entropy, plus ``kd_weight`` times a loss against a teacher.

    The teacher is no part of the run: it is neither trained, nor in checkpoints, nor seen by DDP. It sees the images
    as the student does, augmented and normalised, in evaluation mode, without gradients and in the run's precision.
    A recipe logs the two terms as ``ce`` and ``kd``, unweighted.

    Args:
        teacher: What has been trained before: a checkpoint of a recipe (``.ckpt``), a file of `recipes export`
            (``.safetensors``), a timm name, whose pretrained weights are loaded, or a module, which is frozen and
            moved where it stands.
        loss: Compares student and teacher; None is `KD`.
        ce_weight: Weight of the cross-entropy with the labels. This default and the next are those of the CIFAR-100
            benchmarks for `KD` (https://arxiv.org/abs/1910.10699); each loss names its own.
        kd_weight: Weight of ``loss``.
        kd_warmup: Epochs over which the weight of ``loss`` rises linearly, beginning with its ``kd_warmup``-th part.
        teacher_args: Further arguments of a timm teacher, e.g. ``{pretrained: false, checkpoint_path: FILE}``.
        teacher_image_size: Height and width in pixels that images are resized to for the teacher. None is the size
            that the teacher's file says, or else the student's.
        compile_teacher: Run the teacher through `torch.compile`.
        cache: Folder for the teacher's logits, so that further runs over the same images, with other students or
            losses, need no teacher. Images are known by their pixels: it helps where augmentation is off or replayed
            from the same seed. Each image and epoch takes 4 C + 8 bytes.

    Raises:
        InputError: If a weight or ``kd_warmup`` is negative, the cache is to serve a `FeatureLoss`, or, when the recipe
            is built, the teacher cannot be read or does not fit.
    """

    def __init__(
        self,
        teacher: str | nn.Module,
        loss: LogitLoss | FeatureLoss | None = None,
        *,
        ce_weight: float = 0.1,
        kd_weight: float = 0.9,
        kd_warmup: int = 0,
        teacher_args: dict[str, Any] | None = None,
        teacher_image_size: int | None = None,
        compile_teacher: bool = False,
        cache: str | None = None,
    ) -> None:
        not_negative(ce_weight=ce_weight, kd_weight=kd_weight, kd_warmup=kd_warmup)
        if ce_weight == kd_weight == 0:
            raise InputError("ce_weight and kd_weight are both 0, which leaves nothing to learn: raise one of them")
        loss = loss if loss is not None else KD()
        features = isinstance(loss, FeatureLoss)
        if cache is not None and features:
            raise InputError(f"cache {cache} holds logits, but {type(loss).__name__} needs features: leave it out")
        super().__init__(
            teacher,
            teacher_args=teacher_args,
            teacher_image_size=teacher_image_size,
            compile_teacher=compile_teacher,
            cache=cache,
            teacher_layers=loss.teacher_layers if features else (),
            student_layers=loss.student_layers if features else (),
        )
        self.loss = loss
        self.accepts_soft_labels = loss.accepts_soft_labels
        self.ce_weight = ce_weight
        self.kd_weight = kd_weight
        self.kd_warmup = kd_warmup

    def attach(self, network: nn.Module, *, num_classes: int, in_chans: int, image_size: int | None) -> None:
        """Load the teacher and find the layers."""
        super().attach(network, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        if self.student is None or not isinstance(self.loss, FeatureLoss):
            return
        if image_size is None:
            raise InputError(f"{type(self.loss).__name__} needs to know the size of images: give image_size")
        images = torch.zeros(2, in_chans, image_size, image_size)
        assert self.teacher is not None
        features = self.try_student(network, images), self.ask(images.to(self.teacher.dtype)).features
        self.loss.build(*([tuple(layer.shape[1:]) for layer in layers] for layers in features))

    @property
    def title(self) -> str:
        """What a message calls it."""
        return f"{type(self).__name__} with {type(self.loss).__name__}"

    def forward(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> Tensor:
        """Losses, shape ``(N,)``."""
        return self.parts(logits, labels, context)[0]

    def parts(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses ``(N,)``, and the terms ``ce`` and ``kd``."""
        ce = F.cross_entropy(logits, labels, reduction="none")
        if self.student is not None:
            kd = self.loss(self.student.take(), context.features)
        else:
            kd = self.loss(logits, context.logits, labels)
        rise = min(1.0, (self.epoch + 1) / self.kd_warmup) if self.kd_warmup else 1.0
        return self.ce_weight * ce + rise * self.kd_weight * kd, {"ce": ce, "kd": kd}

    def extra_repr(self) -> str:
        """Shown in the printed module."""
        return f"ce_weight={self.ce_weight}, kd_weight={self.kd_weight}, kd_warmup={self.kd_warmup}"
