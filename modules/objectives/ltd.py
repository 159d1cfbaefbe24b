"""LTD: train on a teacher's probabilities at a low temperature instead of the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import check, positive
from ..losses import soft_cross_entropy
from ..losses._logits import full_precision
from ._teacher_objective import TeacherObjective, TeacherOutput


class LTD(TeacherObjective):
    """Low temperature distillation (https://arxiv.org/abs/2111.02331): cross-entropy against a teacher's soft labels.

    The loss is ``(1 - hard_weight) · CE(s, softmax(t / temperature)) + hard_weight · CE(s, label)`` with the student's
    logits s and the teacher's logits t. The teacher is trained naturally and gets the clean images. The student, in
    adversarial training, gets the attacked images. Its temperature is 1 in training and in use, so its gradients are
    not masked. With temperature 1 and a confident teacher, this is ordinary adversarial training. As the temperature
    grows, the soft labels become uniform.

    **In parts a reconstruction**: the paper's abstract says that teacher and student temperatures are fixed and
    different, with a low one for the teacher. The form of the loss is from memory, and no training code is public. A
    recipe logs the terms ``soft`` and, with ``hard_weight``, ``ce``.

    Args:
        teacher: A trained network, or a list of them: a checkpoint of a recipe (``.ckpt``), a file of `recipes export`
            (``.safetensors``), a timm name or folder (``local-dir:FOLDER``), or a module. A name loads its pretrained
            weights. A module is frozen and moved in place.
        temperature: Divisor of the teacher's logits. The default is ours and unverified; 1 to 5 are worth trying.
        hard_weight: Weight of the cross-entropy with the labels; the soft labels get ``1 - hard_weight``. The default
            is ours and unverified.
        teacher_weights: Weights of the teachers in the mean of their logits; None weighs all teachers equally.
        teacher_args: Further arguments of a teacher given by name, or a list with one entry per teacher.
            ``{checkpoint_path: FILE}`` loads weights of any project; ``prefix`` is a common prefix of their names.
            ``mean`` and ``std`` are the statistics that the teacher's images were normalized with.
        teacher_image_size: Height and width in pixels that images are resized to for the teacher. None is the size in
            the teacher's file, or else the student's size.
        compile_teacher: Run the teacher through `torch.compile`.
        cache: Folder for the teacher's logits; see `Distillation`.

    Raises:
        InputError: If ``temperature`` is not positive or ``hard_weight`` lies outside [0, 1]. When the recipe is built,
            if the teacher cannot be read or does not fit.
    """

    def __init__(
        self,
        teacher: list[str | Path | nn.Module] | str | Path | nn.Module,
        *,
        temperature: float = 2.0,
        hard_weight: float = 0.0,
        teacher_weights: list[float] | None = None,
        teacher_args: dict[str, Any] | list[dict[str, Any]] | None = None,
        teacher_image_size: int | None = None,
        compile_teacher: bool = False,
        cache: str | None = None,
    ) -> None:
        positive(temperature=temperature)
        check(0 <= hard_weight <= 1, "hard_weight", hard_weight, "in [0, 1]")
        super().__init__(
            teacher,
            teacher_weights=teacher_weights,
            teacher_args=teacher_args,
            teacher_image_size=teacher_image_size,
            compile_teacher=compile_teacher,
            cache=cache,
        )
        self.temperature = temperature
        self.hard_weight = hard_weight

    def forward(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> Tensor:
        """Return losses, shape ``(N,)``."""
        return self.parts(logits, labels, context)[0]

    def parts(self, logits: Tensor, labels: Tensor, context: TeacherOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Return losses ``(N,)`` and the terms ``soft`` and, if it has a weight, ``ce``."""
        logits, teacher = full_precision(logits, context.logits)
        soft = soft_cross_entropy(logits, (teacher / self.temperature).softmax(1))
        if not self.hard_weight:
            return soft, {"soft": soft}
        ce = F.cross_entropy(logits, labels, reduction="none")
        return (1 - self.hard_weight) * soft + self.hard_weight * ce, {"soft": soft, "ce": ce}

    def extra_repr(self) -> str:
        """Return the arguments for the printed module."""
        return f"temperature={self.temperature}, hard_weight={self.hard_weight}"
