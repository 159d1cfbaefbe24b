"""Base class of objectives with a teacher."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.evaluation_mode import evaluation_mode
from ..core.feature_capture import FeatureCapture
from ..teachers import LogitCache, MeanTeacher, Teacher, TeacherFacts, load_teacher
from ..teachers.logit_cache import answering_folder
from ._base import Objective


@dataclass(frozen=True)
class TeacherOutput:
    """Outputs of the teacher for a batch."""

    logits: Tensor
    """Shape ``(N, C)``."""
    features: list[Tensor]
    """Outputs of the teacher's layers named in ``teacher_layers``."""


Source = str | Path | nn.Module


class TeacherObjective(Objective):
    """Base class of objectives that run a frozen teacher on every batch.

    The teacher is not trained, not saved in checkpoints and not part of DDP. It gets the student's augmented images, in
    evaluation mode, without gradients and in the run's precision. If its file gives another mean and standard deviation
    than the data, the images are normalized with the teacher's.

    Args:
        teacher: A trained network, or a list of them: a checkpoint of a recipe (``.ckpt``), a file of `recipes export`
            (``.safetensors``), a timm name or folder (``local-dir:FOLDER``), or a module. A name loads its pretrained
            weights. A module is frozen and moved in place.
        teacher_weights: Weights of the teachers in the mean of their logits; None weighs all teachers equally.
        teacher_args: Further arguments of a teacher given by name, or a list with one entry per teacher; see
            `load_teacher`.
        teacher_image_size: Height and width in pixels that images are resized to for the teacher. None is the size in
            the teacher's file, or else the student's size.
        compile_teacher: Run the teacher through `torch.compile`.
        cache: Folder for the teacher's logits. Further runs on the same images, with other students or losses, then
            need no teacher. Images are identified by their pixels, so the cache helps if augmentation is off or
            replayed from the same seed. It takes 4 C + 8 bytes per image and epoch.
        teacher_layers: Layers of the teacher to capture.
        student_layers: Layers of the student to capture.
        needs_logits: True if the teacher's logits are used; they must then be for the student's classes.

    Raises:
        InputError: When the recipe is built, if the teacher cannot be read or does not fit, or the cache cannot be
            written to. When a run starts, if the names of the teacher's classes differ from the data's.
    """

    def __init__(
        self,
        teacher: Source | list[Source],
        *,
        teacher_weights: list[float] | None,
        teacher_args: dict[str, Any] | list[dict[str, Any]] | None,
        teacher_image_size: int | None,
        compile_teacher: bool,
        cache: str | None,
        teacher_layers: Sequence[str] = (),
        student_layers: Sequence[str] = (),
        needs_logits: bool = True,
    ) -> None:
        super().__init__()
        sources: list[Source] = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
        if not sources:
            raise InputError("teacher is an empty list: give at least one")
        if len(sources) > 1 and teacher_layers:
            raise InputError(
                f"teacher: {len(sources)} teachers have no features in common: give one, or losses of logits"
            )
        arguments = teacher_args if isinstance(teacher_args, list) else [teacher_args] * len(sources)
        if len(arguments) != len(sources):
            raise InputError(
                f"teacher_args must be one for all {len(sources)} teachers or one each but is {teacher_args}"
            )
        if teacher_weights is not None and len(teacher_weights) != len(sources):
            raise InputError(f"teacher_weights must be {len(sources)} numbers, one a teacher, but is {teacher_weights}")
        self.teacher_args = arguments
        self.teacher_image_size = teacher_image_size
        self.teacher_weights = teacher_weights
        self.compile_teacher = compile_teacher
        self.teacher_layers = tuple(teacher_layers)
        self.student_layers = tuple(student_layers)
        self.needs_logits = needs_logits
        self.student: FeatureCapture | None = None
        self.teacher: Teacher | MeanTeacher | None = None
        self._sources = [type(one).__name__ if isinstance(one, nn.Module) else str(one) for one in sources]
        self._teachers: list[tuple[Teacher, TeacherFacts] | None] = [
            self._frozen(one, _facts_of_module(given)) if isinstance(one, nn.Module) else None
            for one, given in zip(sources, arguments, strict=True)
        ]
        self._join()
        self._data_is_known = False
        self._num_classes = 0
        self._folder = cache
        self._caches: dict[str, LogitCache] = {}
        self._cached_epoch = 0

    def attach(self, network: nn.Module, *, num_classes: int, in_chans: int, image_size: int | None) -> None:
        """Load the teachers, run them on an image, and find the layers."""
        if self.student_layers:
            self.student = FeatureCapture(network, self.student_layers, argument="student_layers")
        for place, (source, arguments) in enumerate(zip(self._sources, self.teacher_args, strict=True)):
            if self._teachers[place] is None:
                loaded = load_teacher(
                    source,
                    num_classes=num_classes if self.needs_logits else None,
                    in_chans=in_chans,
                    network_args=arguments,
                    student_classes=num_classes,
                )
                self._teachers[place] = self._frozen(*loaded)
        self._join()
        assert self.teacher is not None
        self._num_classes = num_classes
        own = {id(parameter) for parameter in network.parameters()}
        if any(id(parameter) in own for one in self.teacher.networks for parameter in one.parameters()):
            raise InputError(
                f"teacher {self._title} shares its weights with the student, which could then not be trained: give a"
                " copy (copy.deepcopy) or a checkpoint"
            )
        if self._folder is not None:
            _check_writable(Path(self._folder))
        if image_size is None:
            return
        images = torch.zeros(2, in_chans, image_size, image_size)
        try:
            logits = self.teacher(images.to(self.teacher.dtype))[0]
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"teacher {self._title} cannot take images of shape {tuple(images.shape)}: {str(error)[:200]}; another"
                " size is set by teacher_image_size"
            ) from error
        if self.needs_logits and (logits.ndim != 2 or logits.shape[1] != num_classes):
            raise InputError(
                f"teacher {self._title} gives outputs of shape {tuple(logits.shape)} for 2 images, the student"
                f" has num_classes={num_classes}: choose a teacher of the same task"
            )

    def meet_data(
        self,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Set each teacher's normalization, and reorder its classes to match the data's."""
        self._data_is_known = mean is not None and std is not None
        for source, found in zip(self._sources, self._teachers, strict=True):
            if found is None:
                continue
            teacher, facts = found
            if mean is not None and std is not None:
                teacher.renormalize([float(value) for value in mean], [float(value) for value in std])
            if self.needs_logits and class_names and facts.class_names:
                teacher.reorder(_class_order(source, list(facts.class_names), list(class_names)))

    def try_student(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """Return the outputs of the student's layers for images, without a change to the student."""
        assert self.student is not None
        self.student.start()
        with torch.no_grad(), evaluation_mode(network):
            network(images)
        return self.student.take()

    def context(self, images: Tensor, labels: Tensor) -> TeacherOutput:
        """Return the teacher's outputs."""
        if self.student is not None:
            self.student.start()
        return self._answer(images)

    def _answer(self, images: Tensor) -> TeacherOutput:
        if self._folder is None:
            return self.ask(images)
        return TeacherOutput(self._cache(images)(images, lambda images: self.ask(images).logits), [])

    def ask(self, images: Tensor) -> TeacherOutput:
        """Return the teacher's outputs for images ``(N, C, H, W)``, without the cache."""
        if self.teacher is None:
            raise RuntimeError("the teacher is loaded by attach, which a recipe calls when it is built: call it first")
        if not self._data_is_known:
            self._data_is_known = True
            for source, found in zip(self._sources, self._teachers, strict=True):
                if found is not None and found[0].mean is not None:
                    warnings.warn(
                        f"teacher {source} was trained on images of mean {_short(found[0].mean)} and std"
                        f" {_short(found[0].std)}, and the data does not say its own: the teacher gets the student's"
                        " images as they are; a datamodule with mean and std, or objective.meet_data, tells it",
                        stacklevel=2,
                    )
        return TeacherOutput(*self.teacher(images))

    def teacher_logits(self, images: Tensor) -> Tensor | None:
        """Return the teacher's logits for the student's classes, cached if possible; None if the classes differ."""
        logits = self._answer(images).logits
        return logits if logits.ndim == 2 and logits.shape[1] == self._num_classes else None

    def close(self) -> None:
        """Save the cache."""
        for cache in self._caches.values():
            cache.save()

    @property
    def _title(self) -> str:
        return " and ".join(self._sources)

    def _frozen(self, network: nn.Module, facts: TeacherFacts) -> tuple[Teacher, TeacherFacts]:
        teacher = Teacher(
            network,
            image_size=self.teacher_image_size or facts.image_size,
            layers=self.teacher_layers,
            compile=self.compile_teacher,
            mean=facts.mean,
            std=facts.std,
        )
        return teacher, facts

    def _join(self) -> None:
        """Combine the teachers once all of them are loaded."""
        teachers = [found[0] for found in self._teachers if found is not None]
        if len(teachers) == len(self._teachers):
            self.teacher = teachers[0] if len(teachers) == 1 else MeanTeacher(teachers, self.teacher_weights)

    def _cache(self, images: Tensor) -> LogitCache:
        """Return the cache for this teacher and the current precision."""
        kind = images.device.type
        computed_in = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype
        precision = str(computed_in).removeprefix("torch.")
        if precision not in self._caches:
            assert self.teacher is not None
            assert self._folder is not None
            # The probe also covers plain attributes, preprocessing and code; the digest covers weights and structure.
            generator = torch.Generator().manual_seed(0)
            probe = torch.randn((4, *images.shape[1:]), generator=generator).to(images)
            folder = Path(self._folder) / f"{self.teacher.digest()}-{precision}"
            self._caches[precision] = LogitCache(answering_folder(folder, self.ask(probe).logits))
        if self.epoch != self._cached_epoch:
            self._cached_epoch = self.epoch
            self.close()
        return self._caches[precision]

    def _apply(self, fn: Any, recurse: bool = True) -> TeacherObjective:
        for found in self._teachers:
            if found is not None:
                found[0].apply(fn)
        return super()._apply(fn, recurse)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cache {folder} cannot be written to ({error.strerror}): name another folder") from error


def _facts_of_module(arguments: dict[str, Any] | None) -> TeacherFacts:
    """Return the facts given with a module."""
    spare = set(arguments or {}) - {"mean", "std"}
    if spare:
        raise InputError(f"teacher_args {sorted(spare)} need teacher to be a name, but it is a module")
    return TeacherFacts.of(arguments or {})


def _class_order(source: str, own: list[str], wanted: list[str]) -> list[int]:
    """Return, for each class of the data, its index among the teacher's classes.

    Raises:
        InputError: If the teacher has other classes.
    """
    if own == wanted:
        return list(range(len(own)))
    if sorted(own) != sorted(wanted) or len(set(own)) < len(own):
        odd = next((pair for pair in zip(own, wanted, strict=False) if pair[0] != pair[1]), (len(own), len(wanted)))
        raise InputError(
            f"teacher {source} was trained on other classes than the data's, e.g. {odd[0]!r} where the data has"
            f" {odd[1]!r}: choose a teacher of the same classes, or, if they are the same under other names, give its"
            " network as a module"
        )
    return [own.index(name) for name in wanted]


def _short(values: Sequence[float] | None) -> list[float]:
    return [round(float(value), 4) for value in values or ()]
