"""ReviewKD: match each teacher stage with a fusion of the same student stage and all later ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import InputError
from ._features import FeatureLoss
from ._logits import full_precision


def pyramid_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Compute the mean squared difference of two maps, and of both averaged to 4x4, 2x2 and 1x1 pixels.

    The loss is sum_l w_l MSE_l / sum_l w_l with the weights 1, 1/2, 1/4, 1/8. Sizes that are not smaller than the map
    are left out. This is the hierarchical context loss of https://arxiv.org/abs/2104.09044.

    Args:
        student_features: Shape ``(N, c, h, w)``.
        teacher_features: The same shape.

    Returns:
        Losses, shape ``(N,)``.
    """
    student, teacher = full_precision(student_features, teacher_features)
    loss = (student - teacher).square().flatten(1).mean(1)
    weight = total = 1.0
    for side in (4, 2, 1):
        if side < student.shape[2]:
            weight /= 2
            total += weight
            pooled = (F.adaptive_avg_pool2d(features, side) for features in (student, teacher))
            loss = loss + weight * (next(pooled) - next(pooled)).square().flatten(1).mean(1)
    return loss / total


class ReviewKD(FeatureLoss):
    """Knowledge review (https://arxiv.org/abs/2104.09044).

    From the last layer to the first, the student's features are fused with the fusion of all later layers. A small
    attention module gives the two weights per pixel. A convolution maps each fusion to the teacher's channels, and
    `pyramid_loss` compares it with the teacher's layer. The fusion modules are trained with the student and are part of
    its checkpoints. The mdistiller benchmarks weigh this loss by 5, rising over the first 20 epochs, and cross-entropy
    by 1.

    Args:
        student_layers: Names of the student's layers from the first to the last, as in ``network.named_modules()``:
            the stages, and the pooled features as a map of one pixel, e.g. ``[blocks.2, blocks.5, blocks.8, pool]``.
        teacher_layers: Names of the teacher's layers, one for each of the student's. The authors use features before
            the ReLU; for our ResNets this is ``blocks.8.act:input``.

    Raises:
        InputError: If there are no layers, the two networks' layers differ in number, or a map is not square.
    """

    kd_weight = 5.0
    kd_warmup = 20 / 240  # epochs of the authors' runs on CIFAR-100

    needs_maps = False

    def __init__(self, student_layers: Sequence[str], teacher_layers: Sequence[str]) -> None:
        super().__init__(student_layers, teacher_layers)
        self.fusions = nn.ModuleList()

    def build(self, student_shapes: Sequence[tuple[int, ...]], teacher_shapes: Sequence[tuple[int, ...]]) -> None:
        """Build a fusion module for every pair of layers."""
        super().build(student_shapes, teacher_shapes)
        students, teachers = ([(*shape, 1, 1)[:3] for shape in shapes] for shapes in (student_shapes, teacher_shapes))
        middle = min(512, students[-1][0])
        self.fusions = nn.ModuleList()
        for index, (student, teacher) in enumerate(zip(students, teachers, strict=True)):
            for argument, (_, height, width) in (("student_layers", student), ("teacher_layers", teacher)):
                if height != width:
                    raise InputError(f"{argument}: {getattr(self, argument)[index]} gives no square map: name another")
            last = index == len(students) - 1
            self.fusions.append(_Fusion(student[0], middle, teacher[0], size=teacher[1], fuses=not last))

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Return losses, shape ``(N,)``, summed over layers."""
        losses = []
        later: Tensor | None = None
        triples = list(zip(self.fusions, student_features, teacher_features, strict=True))
        for fusion, student, teacher in reversed(triples):
            output, later = fusion(_as_map(student), later)
            losses.append(pyramid_loss(output, _as_map(teacher)))
        return torch.stack(losses).sum(0)


class _Fusion(nn.Module):
    """Module that fuses a layer with the fusion of later layers and maps the result to the teacher's shape."""

    def __init__(self, inputs: int, middle: int, outputs: int, *, size: int, fuses: bool) -> None:
        super().__init__()
        self.size = size
        self.reduce = nn.Sequential(nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.expand = nn.Sequential(nn.Conv2d(middle, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.attention = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if fuses else None
        for convolution in (self.reduce[0], self.expand[0]):
            nn.init.kaiming_uniform_(convolution.get_parameter("weight"), a=1)

    def forward(self, x: Tensor, later: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.reduce(x)
        if self.attention is not None:
            assert later is not None
            later = F.interpolate(later, x.shape[2:], mode="nearest")
            shares = self.attention(torch.cat([x, later], 1))
            x = x * shares[:, :1] + later * shares[:, 1:]
        if x.shape[3] != self.size:
            x = F.interpolate(x, (self.size, self.size), mode="nearest")
        return self.expand(x), x


def _as_map(features: Tensor) -> Tensor:
    return features[:, :, None, None] if features.ndim == 2 else features
