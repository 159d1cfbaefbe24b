"""Distillation: cross-entropy plus any losses between the student and a frozen teacher."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import check, not_negative
from ..core.errors import InputError
from ..core.run_shares import check_epochs, in_epochs, warn_if_unreached
from ..losses import KD, FeatureLoss, LogitLoss
from ._teacher_objective import TeacherObjective, TeacherOutput


class Distillation(TeacherObjective):
    """Cross-entropy plus losses against a teacher: ``ce_weight · CE + Σ_i kd_weight_i · loss_i``.

    The teacher is not trained, not saved in checkpoints and not part of DDP. It gets the student's augmented images, in
    evaluation mode, without gradients and in the run's precision. If its file gives another mean and standard deviation
    than the data, the images are normalized with the teacher's.

    A recipe logs ``val/teacher_accuracy`` once, with the first validation. It logs the unweighted terms: ``ce``, and
    ``kd`` for one loss or the lower-case class names for several losses.

    Args:
        teacher: A trained network, or a list of them: a checkpoint of a recipe (``.ckpt``), a file of `recipes export`
            (``.safetensors``), a timm name or folder (``local-dir:FOLDER``), or a module. A name loads its pretrained
            weights. A module is frozen and moved in place.
        loss: Loss between student and teacher; None is `KD`, unless there are ``losses``.
        losses: Several losses; ``loss``, if given, is added before them.
        ce_weight: Weight of the cross-entropy with the labels. None uses the default of the loss, from its paper: 0.1
            for KD; 0.5 for ATS, ISATS and GlobalLabels; the inner loss's for LSKD; 1 for the others. With several
            losses the largest default is used.
        kd_weight: Weight of the loss, or a list with one weight per loss. None uses the default of each loss, from its
            paper: KD 0.9; ATS, ISATS and GlobalLabels 0.5; DKD 1; DIST 2; LSKD 9; FitNet 100; AttentionTransfer 1000;
            RKD 1; SP 3000; ReviewKD 5; CRD 0.8.
        kd_warmup: Start of the run in which the weights of all losses rise linearly from 0: a share of the run, e.g.
            0.1, or whole epochs, e.g. 20. None uses the default of each loss, from its paper: 1/12 (20 of 240 epochs)
            for DKD, ReviewKD and an LSKD around one of them; no warm-up for the others.
        label_smoothing: Share of each label's mass that is spread evenly over all C classes in the cross-entropy, in
            [0, 1). The losses get unsmoothed labels.
        teacher_weights: Weights of the teachers in the mean of their logits; None weighs all teachers equally.
        teacher_args: Further arguments of a teacher given by name, or a list with one entry per teacher.
            ``{checkpoint_path: FILE}`` loads weights of any project; ``prefix`` is a common prefix of their names.
            ``mean`` and ``std`` are the statistics that the teacher's images were normalized with.
        teacher_image_size: Height and width in pixels that images are resized to for the teacher. None is the size in
            the teacher's file, or else the student's size.
        compile_teacher: Run the teacher through `torch.compile`.
        cache: Folder for the teacher's logits. Further runs on the same images, with other students or losses, then
            need no teacher. Images are identified by their pixels, so the cache helps if augmentation is off or
            replayed from the same seed. It takes 4 C + 8 bytes per image and epoch.

    Raises:
        InputError: If a weight, ``kd_warmup`` or ``label_smoothing`` is out of its range, the numbers of weights and
            losses differ, or ``cache`` is used with a `FeatureLoss`. When the recipe is built, if the teacher cannot be
            read or does not fit.
    """

    def __init__(
        self,
        teacher: list[str | Path | nn.Module] | str | Path | nn.Module,
        loss: LogitLoss | FeatureLoss | None = None,
        *,
        losses: list[LogitLoss | FeatureLoss] | None = None,
        ce_weight: float | None = None,
        kd_weight: float | list[float] | None = None,
        kd_warmup: int | float | None = None,
        label_smoothing: float = 0.0,
        teacher_weights: list[float] | None = None,
        teacher_args: dict[str, Any] | list[dict[str, Any]] | None = None,
        teacher_image_size: int | None = None,
        compile_teacher: bool = False,
        cache: str | None = None,
    ) -> None:
        found = [*([loss] if loss is not None else []), *(losses or [])] or [KD()]
        if kd_weight is None:
            kd_weight = [one.kd_weight for one in found]
        weights = [kd_weight] if isinstance(kd_weight, (int, float)) else list(kd_weight)
        if len(weights) != len(found):
            raise InputError(f"kd_weight must have one value for each of {len(found)} losses but is {kd_weight}")
        ce_weight = max(one.ce_weight for one in found) if ce_weight is None else ce_weight
        not_negative(ce_weight=ce_weight)
        for value in weights:
            not_negative(kd_weight=value)
        check_epochs(kd_warmup=kd_warmup)
        check(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "in [0, 1)")
        if ce_weight == 0 and not any(weights):
            raise InputError("ce_weight and kd_weight are both 0, which leaves nothing to learn: raise one of them")
        hints = [one for one in found if isinstance(one, FeatureLoss)]
        if cache is not None and hints:
            raise InputError(f"cache {cache} holds logits, but {type(hints[0]).__name__} needs features: leave it out")
        super().__init__(
            teacher,
            teacher_weights=teacher_weights,
            teacher_args=teacher_args,
            teacher_image_size=teacher_image_size,
            compile_teacher=compile_teacher,
            cache=cache,
            teacher_layers=[layer for hint in hints for layer in hint.teacher_layers],
            student_layers=[layer for hint in hints for layer in hint.student_layers],
            needs_logits=len(hints) < len(found),
        )
        self.losses = nn.ModuleList(found)
        self.accepts_soft_labels = all(one.accepts_soft_labels for one in found)
        self.repeats_steps = all(hint.repeats_steps for hint in hints)
        self.ce_weight = ce_weight
        self.kd_weights = weights
        self.label_smoothing = label_smoothing
        self.kd_warmups = [one.kd_warmup if kd_warmup is None else kd_warmup for one in found]

    def attach(self, network: nn.Module, *, num_classes: int, in_chans: int, image_size: int | None) -> None:
        """Load the teacher, find the layers, and let each loss check this teacher."""
        super().attach(network, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        if image_size is None:
            for loss in self.losses:
                if isinstance(loss, FeatureLoss):
                    raise InputError(f"{type(loss).__name__} needs to know the size of images: give image_size")
            return
        images = torch.zeros(2, in_chans, image_size, image_size)
        assert self.teacher is not None
        answer = TeacherOutput(*self.teacher(images.to(self.teacher.dtype)))
        if self.student is not None:
            self.try_student(network, images)
        for loss, *features in self._with_features(answer):
            if isinstance(loss, FeatureLoss):
                loss.build(*([tuple(layer.shape[1:]) for layer in layers] for layers in features))
            elif isinstance(loss, LogitLoss):
                loss.build(answer.logits)

    def check_run(self) -> None:
        """Warn if the warm-up of a weight does not finish within the run."""
        for warmup in sorted(set(self.kd_warmups)):
            effect = "the weight of the loss never becomes whole"
            warn_if_unreached(warmup, self.run_epochs, name="kd_warmup", effect=effect)

    def context(self, images: Tensor, labels: Tensor) -> TeacherOutput:
        """Return the teacher's outputs."""
        for loss in self.losses:
            if isinstance(loss, FeatureLoss):
                loss.begin(labels, self.batch_indices, self.class_counts)
        return super().context(images, labels)

    @property
    def title(self) -> str:
        """Name of the objective in messages."""
        return f"{type(self).__name__} with {' and '.join(type(loss).__name__ for loss in self.losses)}"

    def forward(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> Tensor:
        """Return losses, shape ``(N,)``."""
        return self.parts(logits, labels, context)[0]

    def parts(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Return losses ``(N,)`` and the terms ``ce`` and ``kd``, or one term per loss if there are several."""
        ce = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        total, terms = self.ce_weight * ce, {"ce": ce}
        compared = zip(self._with_features(context), self.kd_weights, self.kd_warmups, self._names(), strict=True)
        for (loss, mine, theirs), weight, warmup, name in compared:
            is_hint = isinstance(loss, FeatureLoss)
            terms[name] = loss(mine, theirs) if is_hint else loss(logits, context.logits, labels)
            epochs = in_epochs(warmup, self.run_epochs)
            rise = min(1.0, (self.epoch + 1) / epochs) if epochs else 1.0
            total = total + rise * weight * terms[name]
        return total, terms

    def _with_features(self, context: TeacherOutput) -> Iterator[tuple[nn.Module, list[Tensor], list[Tensor]]]:
        """Yield each loss with the student's and the teacher's features of its layers; empty for losses on logits."""
        mine = iter(self.student.maps() if self.student is not None else ())
        theirs = iter(context.features)
        for loss in self.losses:
            layers = len(loss.student_layers) if isinstance(loss, FeatureLoss) else 0
            yield loss, list(islice(mine, layers)), list(islice(theirs, layers))

    def _names(self) -> list[str]:
        """Return the names of the losses in the log."""
        if len(self.losses) == 1:
            return ["kd"]
        names = [type(loss).__name__.lower() for loss in self.losses]
        return [
            name if names.count(name) == 1 else f"{name}_{names[: place + 1].count(name)}"
            for place, name in enumerate(names)
        ]

    def extra_repr(self) -> str:
        """Return the arguments for the printed module."""
        smoothing = f", label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        return f"ce_weight={self.ce_weight}, kd_weight={self.kd_weights}, kd_warmup={self.kd_warmups}{smoothing}"
