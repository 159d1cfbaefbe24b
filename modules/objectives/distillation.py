"""Distillation: cross-entropy beside any loss against a frozen teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..feature_capture import FeatureCapture
from ..logit_cache import LogitCache
from ..losses import KD, FeatureLoss, LogitLoss
from ..teacher import Teacher, load_teacher
from ._base import Objective


@dataclass(frozen=True)
class TeacherOutput:
    """What the teacher says of a batch."""

    logits: Tensor
    """Shape ``(N, C)``."""
    features: list[Tensor]
    """Outputs of the layers that a `FeatureLoss` asks for."""


class Distillation(Objective):
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
        super().__init__()
        for name, value in (("ce_weight", ce_weight), ("kd_weight", kd_weight), ("kd_warmup", kd_warmup)):
            if not value >= 0:
                raise InputError(f"{name} must be at least 0 but is {value}")
        self.loss = loss if loss is not None else KD()
        self.accepts_soft_labels = getattr(self.loss, "accepts_soft_labels", True)
        if cache is not None and isinstance(self.loss, FeatureLoss):
            raise InputError(f"cache {cache} holds logits, but {type(self.loss).__name__} needs features: leave it out")
        self.ce_weight = ce_weight
        self.kd_weight = kd_weight
        self.kd_warmup = kd_warmup
        self.teacher_args = teacher_args
        self.teacher_image_size = teacher_image_size
        self.compile_teacher = compile_teacher
        self._source = teacher if isinstance(teacher, str) else type(teacher).__name__
        self.teacher = None if isinstance(teacher, str) else self._frozen(teacher, None)
        self._student: FeatureCapture | None = None
        self._folder = cache
        self._caches: dict[str, LogitCache] = {}
        self._cached_epoch = 0

    def attach(self, network: nn.Module, *, num_classes: int, in_chans: int, image_size: int | None) -> None:
        """Load the teacher, try it on an image, and find the layers."""
        if self.teacher is None:
            self.teacher = self._frozen(
                *load_teacher(self._source, num_classes=num_classes, in_chans=in_chans, network_args=self.teacher_args)
            )
        if image_size is None:
            if isinstance(self.loss, FeatureLoss):
                raise InputError(f"{type(self.loss).__name__} needs to know the size of images: give image_size")
            return
        images = torch.zeros(2, in_chans, image_size, image_size)
        try:
            answer = self._ask(images)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise InputError(
                f"teacher {self._source} cannot take images of shape {tuple(images.shape)}: {str(error)[:200]}"
            ) from error
        if answer.logits.ndim != 2 or answer.logits.shape[1] != num_classes:
            raise InputError(
                f"teacher {self._source} gives outputs of shape {tuple(answer.logits.shape)} for 2 images, the student"
                f" has num_classes={num_classes}: choose a teacher of the same task"
            )
        if isinstance(self.loss, FeatureLoss):
            self._student = FeatureCapture(network, self.loss.student_layers, argument="student_layers")
            modes = {module: module.training for module in network.modules()}
            network.eval()
            self._student.start()
            with torch.no_grad():
                network(images)
            for module, mode in modes.items():
                module.training = mode
            self.loss.build(*([tuple(f.shape[1:]) for f in kind] for kind in (self._student.take(), answer.features)))

    def context(self, images: Tensor, labels: Tensor) -> TeacherOutput:
        """The teacher's answer."""
        if self._student is not None:
            self._student.start()
        if self._folder is None:
            return self._ask(images)
        return TeacherOutput(self._cache(images)(images, lambda images: self._ask(images).logits), [])

    def forward(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> Tensor:
        """Losses, shape ``(N,)``."""
        return self.parts(logits, labels, context)[0]

    def parts(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses ``(N,)``, and the terms ``ce`` and ``kd``."""
        ce = F.cross_entropy(logits, labels, reduction="none")
        if isinstance(self.loss, FeatureLoss):
            assert self._student is not None
            kd = self.loss(self._student.take(), context.features)
        else:
            kd = self.loss(logits, context.logits, labels)
        rise = min(1.0, (self.epoch + 1) / self.kd_warmup) if self.kd_warmup else 1.0
        return self.ce_weight * ce + rise * self.kd_weight * kd, {"ce": ce, "kd": kd}

    def close(self) -> None:
        """Save the cache."""
        for cache in self._caches.values():
            cache.save()

    def extra_repr(self) -> str:
        """Shown in the printed module."""
        return f"ce_weight={self.ce_weight}, kd_weight={self.kd_weight}, kd_warmup={self.kd_warmup}"

    def _frozen(self, network: nn.Module, own_image_size: int | None) -> Teacher:
        return Teacher(
            network,
            image_size=self.teacher_image_size or own_image_size,
            layers=self.loss.teacher_layers if isinstance(self.loss, FeatureLoss) else (),
            compile=self.compile_teacher,
        )

    def _ask(self, images: Tensor) -> TeacherOutput:
        if self.teacher is None:
            raise RuntimeError("the teacher is loaded by attach, which a recipe calls when it is built: call it first")
        return TeacherOutput(*self.teacher(images))

    def _cache(self, images: Tensor) -> LogitCache:
        """The cache for this teacher in the precision of the moment."""
        kind = images.device.type
        computed_in = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype
        precision = str(computed_in).removeprefix("torch.")
        if precision not in self._caches:
            assert self.teacher is not None
            assert self._folder is not None
            self._caches[precision] = LogitCache(Path(self._folder) / f"{self.teacher.digest()}-{precision}")
        if self.epoch != self._cached_epoch:
            self._cached_epoch = self.epoch
            self.close()
        return self._caches[precision]

    def _apply(self, fn: Any, recurse: bool = True) -> Distillation:
        if self.teacher is not None:
            self.teacher.apply(fn)
        return super()._apply(fn, recurse)
