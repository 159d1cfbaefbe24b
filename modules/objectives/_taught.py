"""What all objectives with a teacher share."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..evaluation_mode import evaluation_mode
from ..feature_capture import FeatureCapture
from ..logit_cache import LogitCache
from ..teacher import Teacher, load_teacher
from ._base import Objective


@dataclass(frozen=True)
class TeacherOutput:
    """What the teacher says of a batch."""

    logits: Tensor
    """Shape ``(N, C)``."""
    features: list[Tensor]
    """Outputs of the layers that were asked for."""


class Taught(Objective):
    """Base of the objectives that ask a frozen teacher about each batch.

    The teacher is no part of the run: it is neither trained, nor in checkpoints, nor seen by DDP. It sees the images
    as the student does, augmented and normalised, in evaluation mode, without gradients and in the run's precision.

    Args:
        teacher: What has been trained before: a checkpoint of a recipe (``.ckpt``), a file of `recipes export`
            (``.safetensors``), a timm name, whose pretrained weights are loaded, or a module, which is frozen and
            moved where it stands.
        teacher_args: Further arguments of a timm teacher, e.g. ``{pretrained: false, checkpoint_path: FILE}``.
        teacher_image_size: Height and width in pixels that images are resized to for the teacher. None is the size
            that the teacher's file says, or else the student's.
        compile_teacher: Run the teacher through `torch.compile`.
        cache: Folder for the teacher's logits, so that further runs over the same images, with other students or
            losses, need no teacher. Images are known by their pixels: it helps where augmentation is off or replayed
            from the same seed. Each image and epoch takes 4 C + 8 bytes.
        teacher_layers: Layers of the teacher whose outputs are wanted.
        student_layers: Layers of the student whose outputs are wanted.

    Raises:
        InputError: If, when the recipe is built, the teacher cannot be read or does not fit, or the cache cannot be
            written to.
    """

    def __init__(
        self,
        teacher: str | nn.Module,
        *,
        teacher_args: dict[str, Any] | None,
        teacher_image_size: int | None,
        compile_teacher: bool,
        cache: str | None,
        teacher_layers: Sequence[str] = (),
        student_layers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.teacher_args = teacher_args
        self.teacher_image_size = teacher_image_size
        self.compile_teacher = compile_teacher
        self.teacher_layers = tuple(teacher_layers)
        self.student_layers = tuple(student_layers)
        self.student: FeatureCapture | None = None
        self._source = teacher if isinstance(teacher, str) else type(teacher).__name__
        self.teacher = None if isinstance(teacher, str) else self._frozen(teacher, None)
        self._folder = cache
        self._caches: dict[str, LogitCache] = {}
        self._cached_epoch = 0

    def attach(self, network: nn.Module, *, num_classes: int, in_chans: int, image_size: int | None) -> None:
        """Load the teacher, try it on an image, and find the layers."""
        if self.student_layers:
            self.student = FeatureCapture(network, self.student_layers, argument="student_layers")
        if self.teacher is None:
            self.teacher = self._frozen(
                *load_teacher(self._source, num_classes=num_classes, in_chans=in_chans, network_args=self.teacher_args)
            )
        if self._folder is not None:
            _check_writable(Path(self._folder))
        if image_size is None:
            return
        images = torch.zeros(2, in_chans, image_size, image_size)
        try:
            logits = self.ask(images.to(self.teacher.dtype)).logits
        except (RuntimeError, ValueError, AssertionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"teacher {self._source} cannot take images of shape {tuple(images.shape)}: {str(error)[:200]}"
            ) from error
        if logits.ndim != 2 or logits.shape[1] != num_classes:
            raise InputError(
                f"teacher {self._source} gives outputs of shape {tuple(logits.shape)} for 2 images, the student"
                f" has num_classes={num_classes}: choose a teacher of the same task"
            )

    def try_student(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """Return what the student's layers give for images, without a trace left in the student."""
        assert self.student is not None
        self.student.start()
        with torch.no_grad(), evaluation_mode(network):
            network(images)
        return self.student.take()

    def context(self, images: Tensor, labels: Tensor) -> TeacherOutput:
        """The teacher's answer."""
        if self.student is not None:
            self.student.start()
        if self._folder is None:
            return self.ask(images)
        return TeacherOutput(self._cache(images)(images, lambda images: self.ask(images).logits), [])

    def ask(self, images: Tensor) -> TeacherOutput:
        """The teacher's answer to images ``(N, C, H, W)``, past the cache."""
        if self.teacher is None:
            raise RuntimeError("the teacher is loaded by attach, which a recipe calls when it is built: call it first")
        return TeacherOutput(*self.teacher(images))

    def close(self) -> None:
        """Save the cache."""
        for cache in self._caches.values():
            cache.save()

    def _frozen(self, network: nn.Module, own_image_size: int | None) -> Teacher:
        return Teacher(
            network,
            image_size=self.teacher_image_size or own_image_size,
            layers=self.teacher_layers,
            compile=self.compile_teacher,
        )

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

    def _apply(self, fn: Any, recurse: bool = True) -> Taught:
        if self.teacher is not None:
            self.teacher.apply(fn)
        return super()._apply(fn, recurse)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cache {folder} cannot be written to ({error.strerror}): name another folder") from error
