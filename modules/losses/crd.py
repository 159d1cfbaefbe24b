"""CRD: contrast the student's features of an image with the teacher's features of this image and of other images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import at_least, check, positive
from ..core.errors import InputError
from ..core.sampling import Stream, derived_seed, run_seed
from ._features import FeatureLoss, in_rows, products

EPSILON = 1e-7


def contrast_loss(scores: Tensor, constant: Tensor, *, num_samples: int) -> Tensor:
    """Compute the noise-contrastive loss of one positive and K negatives out of n samples.

    The loss is -log p_0 / (p_0 + K/n) - sum_k log (K/n) / (p_k + K/n), with p = exp(score) / Z
    (https://arxiv.org/abs/1910.10699, equation 18).

    Args:
        scores: Inner products with one positive, first, and K negatives, divided by the temperature; shape
            ``(N, 1 + K)``.
        constant: Z, a scalar.
        num_samples: n, the number of training samples.

    Returns:
        Losses, shape ``(N,)``.
    """
    chances = scores.exp() / constant
    noise = (scores.shape[1] - 1) / num_samples
    positive, negatives = chances[:, 0], chances[:, 1:]
    of_positive = (positive / (positive + noise + EPSILON)).log()
    of_negatives = (noise / (negatives + noise + EPSILON)).log()
    return -of_positive - of_negatives.sum(1)


class CRD(FeatureLoss):
    """Contrastive representation distillation (https://arxiv.org/abs/1910.10699); see `contrast_loss`.

    Both networks' features are mapped linearly to vectors of unit length. Two memory banks, one per network, hold a
    running mean of these vectors for every training sample. The student's vector is contrasted with the teacher's bank,
    and the teacher's vector with the student's bank. The positive is the row of the same sample. The negatives are rows
    of other classes; the class of a row is known once its sample has been seen. The linear maps are trained with the
    student, and maps and banks are part of its checkpoints. The benchmarks weigh this loss by 0.8 and cross-entropy by
    1, with the pooled features.

    The data must give the index of every training sample, as our datamodules do. Validation samples have no row, so
    their loss is 0. Mixup and CutMix are refused, and so are callbacks that compute a step twice. Under DDP the banks
    are the same in all processes.

    Args:
        student_layers: Name of the student's layer, as in ``network.named_modules()``: ``[pool]`` for our networks,
            ``[global_pool]`` for timm's ResNets.
        teacher_layers: Name of the teacher's layer.
        num_samples: Number of training samples, e.g. 45,000 for CIFAR-100 with ``val_fraction`` 0.1.
        dim: Length of the compared vectors. The defaults of this and all further arguments are the authors'.
        negatives: Number of negatives per sample, drawn without replacement; at most the samples of other classes.
        temperature: Divisor of the inner products.
        momentum: Share of a row that is kept when its sample is seen.

    Raises:
        InputError: If not exactly one layer per network is named, or a number is out of its range. With the first
            batch, if the data has another number of training samples, too few of other classes, or gives no indices.
    """

    accepts_soft_labels = False
    needs_maps = False
    repeats_steps = False
    kd_weight = 0.8
    student_bank: Tensor
    teacher_bank: Tensor
    labels: Tensor
    constants: Tensor

    def __init__(
        self,
        student_layers: Sequence[str],
        teacher_layers: Sequence[str],
        *,
        num_samples: int,
        dim: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        if len(self.student_layers) > 1:
            raise InputError(f"student_layers {list(student_layers)}: CRD compares one layer, name the pooled features")
        at_least(1, dim=dim)
        check(1 <= negatives < num_samples, "negatives", negatives, f"in 1..{num_samples - 1}, below num_samples,")
        positive(temperature=temperature)
        check(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
        self.num_samples = num_samples
        self.dim = dim
        self.negatives = negatives
        self.temperature = temperature
        self.momentum = momentum
        self.maps = nn.ModuleList()
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, torch.empty(num_samples, dim).uniform_(-1, 1) / math.sqrt(dim / 3))
        self.register_buffer("labels", torch.full((num_samples,), -1))  # -1 until the sample has been seen
        self.register_buffer("constants", torch.ones(2))  # Z of both banks, set by the first batch
        self._draws = 0
        self._batch: tuple[Tensor, Tensor] | None = None

    def build(self, student_shapes: Sequence[tuple[int, ...]], teacher_shapes: Sequence[tuple[int, ...]]) -> None:
        """Build the linear maps."""
        super().build(student_shapes, teacher_shapes)
        self.maps = nn.ModuleList(nn.Linear(math.prod(shape), self.dim) for shape in (*student_shapes, *teacher_shapes))

    def begin(self, labels: Tensor, indices: Tensor | None, class_counts: Sequence[int] | None) -> None:
        """Receive the labels and indices of a batch."""
        self._batch = None
        if not self.training:
            return
        if indices is None or len(indices) != len(labels):
            raise InputError(
                "CRD knows each training sample by its index, which this data does not hand over: use one of our"
                " datamodules, or choose RKD or SP, which compare the samples of a batch"
            )
        if class_counts and sum(class_counts) != self.num_samples:
            raise InputError(
                f"num_samples must be {sum(class_counts)}, the number of training samples, but is {self.num_samples}"
            )
        if class_counts:
            others = self.num_samples - max(class_counts)
            check(
                self.negatives <= others, "negatives", self.negatives, f"in 1..{others}, the samples of other classes,"
            )
        self._batch = labels, indices.long()

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """Return losses, shape ``(N,)``; in training, update the rows of the batch's samples afterwards."""
        if self._batch is None:
            return in_rows(student_features[0]).new_zeros(len(student_features[0]))
        features = in_rows(student_features[0]), in_rows(teacher_features[0])
        student, teacher = (_mapped(rows, layer) for rows, layer in zip(features, self.maps, strict=True))
        labels, indices = self._batch
        self._draws += 1
        rows = torch.cat([indices.unsqueeze(1), self._other_classes(labels)], 1)
        losses = student.new_zeros(len(student))
        for number, (vectors, bank) in enumerate(((student, self.teacher_bank), (teacher, self.student_bank))):
            # Compute all products, then choose: gathering rows of the bank would take `dim` times the memory. The bank
            # is copied, because it is updated before the backward pass.
            scores = products(vectors, bank.to(vectors, copy=True).T).gather(1, rows) / self.temperature
            if self._draws == 1:
                self._set_constant(number, scores.detach())
            losses = losses + contrast_loss(scores, self.constants[number].clone(), num_samples=self.num_samples)
        self._move(student.detach(), teacher.detach(), labels, indices)
        return losses

    def _other_classes(self, labels: Tensor) -> Tensor:
        """Draw rows ``(N, negatives)`` of samples from other classes, without replacement."""
        rank = dist.get_rank() if dist.is_initialized() else 0
        key = run_seed(), self._draws, rank
        generator = torch.Generator(labels.device).manual_seed(derived_seed(Stream.CONTRAST_NEGATIVES, *key))
        keys = torch.rand(len(labels), self.num_samples, device=labels.device, generator=generator)
        return keys.masked_fill(labels.unsqueeze(1) == self.labels, -1).topk(self.negatives, sorted=False).indices

    def _set_constant(self, number: int, scores: Tensor) -> None:
        """Set Z from the first batch: the mean of exp(score) times n."""
        constant = scores.exp().mean() * self.num_samples
        if dist.is_initialized():
            dist.all_reduce(constant)
            constant = constant / dist.get_world_size()
        self.constants[number] = constant

    @torch.no_grad()
    def _move(self, student: Tensor, teacher: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Move the rows of these samples towards their new vectors."""
        student, teacher, labels, indices = map(_of_all_processes, (student, teacher, labels, indices))
        for bank, vectors in ((self.student_bank, student), (self.teacher_bank, teacher)):
            rows = self.momentum * bank[indices] + (1 - self.momentum) * vectors.to(bank)
            bank[indices] = F.normalize(rows, dim=1)
        self.labels[indices] = labels

    def get_extra_state(self) -> Tensor:
        """Return the number of draws so far, so that a resumed run continues with the next draw."""
        return torch.tensor(self._draws)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue after this number of draws."""
        self._draws = int(state)


def _mapped(rows: Tensor, layer: nn.Module) -> Tensor:
    """Return vectors of unit length, ``(N, dim)``."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    return F.normalize(products(rows, weight.T.to(rows)) + bias, dim=1)


def _of_all_processes(values: Tensor) -> Tensor:
    """Concatenate the values of all processes."""
    if not dist.is_initialized():
        return values
    gathered = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, values.contiguous())
    return torch.cat(gathered)
