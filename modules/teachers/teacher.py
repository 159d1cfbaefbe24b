"""Frozen teacher networks that stay outside the module they teach."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.compiling import compile_network
from ..core.errors import InputError
from ..core.feature_capture import FeatureCapture
from ..networks import fastest_memory_format, to_memory_format


class Teacher:
    """Frozen network in evaluation mode, without gradients.

    It is no `nn.Module`, so the module that holds it does not train it, save it or send it to other processes. That
    module passes moves and casts on through :meth:`apply`. Copies of the module share the teacher.

    Args:
        network: Maps images to logits ``(N, C)``, or to a tuple with the logits first, or to a mapping or object with
            ``logits``. It is frozen and moved in place.
        image_size: Height and width in pixels that images of another size are resized to (bicubic); None does not
            resize.
        layers: Names of layers to capture.
        compile: Run the network through `torch.compile`.
        mean: Mean per channel that the network's images were normalized with; None if unknown.
        std: Standard deviation per channel that the network's images were normalized with; None if unknown.

    Raises:
        InputError: If the network has no such layer, or a value of ``std`` is not positive.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        image_size: int | None = None,
        layers: Sequence[str] = (),
        compile: bool = False,  # noqa: A002, torch's own word
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.image_size = image_size
        self.memory_format = fastest_memory_format(network)
        if self.memory_format is not torch.preserve_format:
            self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.features = FeatureCapture(network, layers, argument="teacher_layers")
        self.mean, self.std = mean, std
        self._affine: tuple[Tensor, Tensor] | None = None
        self._order: list[int] | None = None
        if compile:
            compile_network(network, hooked=bool(layers))

    def __call__(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of images ``(N, C, H, W)``, and the outputs of the layers."""
        like = next(self.network.parameters(), None)
        if like is not None and like.device != images.device:
            self.network.to(images.device)  # sharding strategies may move modules without `_apply`
        if self._affine is not None:
            scale, shift = (value.to(images.device) for value in self._affine)
            images = (images.float() * scale + shift).to(images.dtype)
        if self.image_size is not None and images.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            # Some devices cannot resize in half precision.
            images = F.interpolate(images.float(), size, mode="bicubic", antialias=True).to(images.dtype)
        self.features.start()
        with torch.no_grad():
            logits = _logits(self.network(to_memory_format(images, self.memory_format)))
        return logits if self._order is None else logits[:, self._order], self.features.maps()

    def renormalize(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Convert images normalized with ``mean`` and ``std`` to this network's normalization.

        An image x becomes ``(x · std + mean - m) / s``, where m and s are the network's mean and standard deviation.
        Equal statistics change nothing.

        Args:
            mean: Mean per channel, on the scale [0, 1].
            std: Standard deviation per channel, on the same scale.

        Raises:
            InputError: If the numbers of channels differ.
        """
        self._affine = None
        if self.mean is None or self.std is None:
            return
        given, own = [torch.tensor([list(mean), list(std)]).double(), torch.tensor([list(self.mean), list(self.std)])]
        if given.shape != own.shape:
            raise InputError(f"teacher: its mean {self.mean} has not as many channels as the data's mean {list(mean)}")
        if not torch.allclose(given, own.double(), rtol=0, atol=1e-6):
            scale, shift = given[1] / own[1], (given[0] - own[0]) / own[1]
            self._affine = scale.float().view(-1, 1, 1), shift.float().view(-1, 1, 1)

    def reorder(self, order: Sequence[int] | None) -> None:
        """Reorder the logits: entry i becomes the logit of the network's class ``order[i]``."""
        self._order = None if order is None or list(order) == sorted(order) else list(order)

    @property
    def networks(self) -> list[nn.Module]:
        """List of the networks that are run."""
        return [self.network]

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the teacher's images."""
        return next((value.dtype for value in self.network.parameters() if value.is_floating_point()), torch.float32)

    def apply(self, function: Any) -> None:
        """Apply a function of `nn.Module._apply` to the teacher."""
        self.network._apply(function)

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    def digest(self) -> str:
        """Return hexadecimal digits that change with any change of the network or its weights."""
        digest = hashlib.sha256(f"{self.network!r} {self.image_size}".encode())
        for name, value in self.network.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:32]


class MeanTeacher:
    """Several teachers as one: the weighted mean of their logits, ``Σ_i w_i z_i / Σ_i w_i``.

    Args:
        teachers: The teachers.
        weights: Weights w of the teachers; None weighs them equally.

    Raises:
        InputError: If the numbers of weights and teachers differ, or a weight is not positive.
    """

    def __init__(self, teachers: Sequence[Teacher], weights: Sequence[float] | None = None) -> None:
        weights = [1.0] * len(teachers) if weights is None else list(weights)
        if len(weights) != len(teachers) or not all(weight > 0 for weight in weights):
            raise InputError(
                f"teacher_weights must be {len(teachers)} positive numbers, one a teacher, but is {weights}"
            )
        self.teachers = list(teachers)
        self.weights = [weight / sum(weights) for weight in weights]

    def __call__(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of images ``(N, C, H, W)``, and no features."""
        answers = [teacher(images)[0] for teacher in self.teachers]
        if len({answer.shape for answer in answers}) > 1:
            raise InputError(
                f"teacher: the teachers give logits of shapes {[tuple(answer.shape) for answer in answers]}: choose"
                " teachers of the same classes"
            )
        return sum(weight * answer for weight, answer in zip(self.weights, answers, strict=True)), []  # type: ignore

    @property
    def networks(self) -> list[nn.Module]:
        """List of the networks that are run."""
        return [teacher.network for teacher in self.teachers]

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the teachers' images."""
        return self.teachers[0].dtype

    def apply(self, function: Any) -> None:
        """Apply a function of `nn.Module._apply` to every teacher."""
        for teacher in self.teachers:
            teacher.apply(function)

    def __deepcopy__(self, memo: dict[int, Any]) -> MeanTeacher:
        return self

    def digest(self) -> str:
        """Return hexadecimal digits that change with any change of the networks, their weights or the mean."""
        parts = [f"{weight} {teacher.digest()}" for weight, teacher in zip(self.weights, self.teachers, strict=True)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]


def _logits(output: Any) -> Tensor:
    """Return the logits in a network's output: the output, its ``logits``, or its first entry."""
    if isinstance(output, Tensor):
        return output
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if found is None and isinstance(output, (tuple, list)) and output:
        found = output[0]
    if not isinstance(found, Tensor):
        raise InputError(
            f"teacher gives {type(output).__name__} and no logits: it must give a tensor (N, C), a tuple that begins"
            " with one, or something that holds one as `logits`"
        )
    return found
