"""Distillation: cross-entropy and any losses against a frozen teacher."""

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
    """Cross-entropy and any losses against a teacher: ``ce_weight`` CE + sum_i ``kd_weight``_i loss_i.

    The teacher is no part of the run: it is neither trained, nor in checkpoints, nor seen by DDP. It sees the images
    as the student does, augmented, in evaluation mode, without gradients and in the run's precision. Where its file
    says another mean and standard deviation than the data, the images are normalised by its own.

    A recipe logs ``val/teacher_accuracy`` once, with the first validation. It logs the unweighted terms: ``ce``, and
    ``kd`` for one loss or the lower-case class name of each of several losses.

    Args:
        teacher: A trained network, or a list of them: a checkpoint of a recipe (``.ckpt``), a file of `recipes export`
            (``.safetensors``), a timm name (pretrained weights are loaded), a timm folder (``local-dir:FOLDER``), or a
            module, which is frozen and moved in place.
        loss: Compares student and teacher; None is `KD`, where there are no ``losses``.
        losses: Several losses; ``loss``, if it is given too, comes before them.
        ce_weight: Weight of the cross-entropy with the labels. None is the weight that the loss states from its paper:
            0.1 for KD; 0.5 for ATS, ISATS and GlobalLabels; the weight of its inner loss for LSKD; 1 for the others. Of
            several losses the largest counts.
        kd_weight: Weight of the loss, or a list with the weight of each. None is the weight that each loss states from
            its paper: KD 0.9; ATS, ISATS and GlobalLabels 0.5; DKD 1; DIST 2; LSKD 9; FitNet 100; AttentionTransfer
            1000; RKD 1; SP 3000; ReviewKD 5; CRD 0.8.
        kd_warmup: Beginning of the run over which the weights of all losses rise linearly from 0: a share of the run,
            e.g. 0.1, or whole epochs, e.g. 20. None is the warm-up that each loss states from its paper: 1/12, which is
            20 of 240 epochs, for DKD, ReviewKD and LSKD in front of one of them; none for the others.
        label_smoothing: Share of each label's mass that is spread evenly over all C classes in the cross-entropy, in
            [0, 1). The losses see the labels as they are.
        teacher_weights: Weights of the teachers in the mean of their logits; None weighs all teachers alike.
        teacher_args: Further arguments of a teacher by name, or a list of them, one a teacher. ``{checkpoint_path:
            FILE}`` loads weights of any project, with ``prefix`` if their names begin with one; ``mean`` and ``std``
            are the normalization of the teacher's images.
        teacher_image_size: Height and width in pixels that images are resized to for the teacher. None is the size
            that the teacher's file says, or else the student's.
        compile_teacher: Run the teacher through `torch.compile`.
        cache: Folder for the teacher's logits, so that further runs over the same images, with other students or
            losses, need no teacher. Images are known by their pixels: it helps where augmentation is off or replayed
            from the same seed. Each image and epoch takes 4 C + 8 bytes.

    Raises:
        InputError: If a weight, ``kd_warmup`` or ``label_smoothing`` is out of its range, there are not as many weights
            as losses, the cache is to serve a `FeatureLoss`, or, when the recipe is built, the teacher cannot be read
            or does not fit.
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
        """Load the teacher, find the layers, and let each loss say whether it can learn from this teacher."""
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
        """Warn of a weight that never becomes whole."""
        for warmup in sorted(set(self.kd_warmups)):
            effect = "the weight of the loss never becomes whole"
            warn_if_unreached(warmup, self.run_epochs, name="kd_warmup", effect=effect)

    def context(self, images: Tensor, labels: Tensor) -> TeacherOutput:
        """The teacher's answer."""
        for loss in self.losses:
            if isinstance(loss, FeatureLoss):
                loss.begin(labels, self.batch_indices, self.class_counts)
        return super().context(images, labels)

    @property
    def title(self) -> str:
        """Name of the objective in messages."""
        return f"{type(self).__name__} with {' and '.join(type(loss).__name__ for loss in self.losses)}"

    def forward(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> Tensor:
        """Losses, shape ``(N,)``."""
        return self.parts(logits, labels, context)[0]

    def parts(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses ``(N,)``, and the terms ``ce`` and ``kd``, or the names of several losses."""
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
        """Each loss with the student's and the teacher's features of its layers; none for losses of logits."""
        mine = iter(self.student.maps() if self.student is not None else ())
        theirs = iter(context.features)
        for loss in self.losses:
            layers = len(loss.student_layers) if isinstance(loss, FeatureLoss) else 0
            yield loss, list(islice(mine, layers)), list(islice(theirs, layers))

    def _names(self) -> list[str]:
        """The losses' names in the log."""
        if len(self.losses) == 1:
            return ["kd"]
        names = [type(loss).__name__.lower() for loss in self.losses]
        return [
            name if names.count(name) == 1 else f"{name}_{names[: place + 1].count(name)}"
            for place, name in enumerate(names)
        ]

    def extra_repr(self) -> str:
        """Shown in the printed module."""
        smoothing = f", label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        return f"ce_weight={self.ce_weight}, kd_weight={self.kd_weights}, kd_warmup={self.kd_warmups}{smoothing}"
