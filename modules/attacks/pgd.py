"""PGD: adversarial images by projected gradient steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import at_least, not_negative, one_of
from ..core.errors import InputError
from ..core.evaluation_mode import evaluation_mode
from ..core.sampling import Stream, derived_seed

Loss = Callable[[Tensor, Tensor], Tensor]
"""Function from logits ``(N, C)`` and the labels given to the attack to losses ``(N,)``."""


class PGD:
    """Projected gradient ascent on a loss, within a ball around each image (https://arxiv.org/abs/1706.06083).

    Images, ``eps`` and ``step_size`` are in pixel units. If the network needs normalized images, it must normalize them
    itself. One step without a random start is the fast gradient sign method, :meth:`fgsm`. One step from a uniform
    start is FGSM-RS (https://arxiv.org/abs/2001.03994); its authors use a ``step_size`` of 1.25 eps.

    By default the network is in evaluation mode during the attack, so batch norm uses its running statistics and does
    not update them. Afterwards modes, gradients and global random generators are restored. Gradients are computed only
    for the images. Under autocast the forward passes use its precision; images and steps stay in float32.

    Args:
        eps: Radius of the ball; 0 returns the images unchanged. The defaults of ``eps``, ``step_size`` and ``steps``
            are the CIFAR-10 benchmarks' for the norm "linf"; for "l2" they use an eps of 0.5.
        step_size: Length of a step.
        steps: Number of steps.
        norm: Norm of the ball: the largest change of a pixel ("linf"), or the Euclidean norm of the image's change
            ("l2").
        start: Starting point: drawn uniformly from the ball ("uniform"), the image plus 0.001 times standard normal
            noise ("gaussian", as in TRADES, https://arxiv.org/abs/1901.08573), or the image ("image").
        restarts: Number of starts; for each image the result with the highest loss is kept.
        targeted: True if labels are target classes; the loss is then minimized.
        low: Smallest valid pixel value.
        high: Largest valid pixel value.
        mode: Mode of the network during the attack: "evaluation", or "unchanged". FGSM-RS, N-FGSM and AWP without
            TRADES attack in training mode, so "unchanged" is their setting. Batch norm then uses batch statistics,
            every pass updates the running ones, and dropout draws from the global generators. Recipes attack
            validation and test images in evaluation mode.

    Raises:
        InputError: If an argument is out of its range.

    Examples:
        >>> attack = PGD(eps=8 / 255, step_size=2 / 255, steps=10)
        >>> network, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(4, 3, 2, 2)
        >>> adversarial = attack(network, images, torch.tensor([0, 1, 0, 1]), key=(0, 0, 0))
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    def __init__(
        self,
        eps: float = 8 / 255,
        step_size: float = 2 / 255,
        steps: int = 10,
        *,
        norm: Literal["linf", "l2"] = "linf",
        start: Literal["uniform", "gaussian", "image"] = "uniform",
        restarts: int = 1,
        targeted: bool = False,
        low: float = 0.0,
        high: float = 1.0,
        mode: Literal["evaluation", "unchanged"] = "evaluation",
    ) -> None:
        not_negative(eps=eps, step_size=step_size)
        at_least(1, steps=steps, restarts=restarts)
        one_of(("linf", "l2"), norm=norm)
        if not low < high:
            raise InputError(f"low must be less than high but they are {low} and {high}")
        one_of(("uniform", "gaussian", "image"), start=start)
        if restarts > 1 and start == "image":
            raise InputError(f"restarts={restarts} need another start than image, or all beginnings are the same")
        one_of(("evaluation", "unchanged"), mode=mode)
        self.eps = eps
        self.step_size = step_size
        self.steps = steps
        self.norm: Literal["linf", "l2"] = norm
        self.start = start
        self.restarts = restarts
        self.targeted = targeted
        self.low = low
        self.high = high
        self.mode = mode

    @classmethod
    def fgsm(cls, eps: float = 8 / 255) -> PGD:
        """Return the fast gradient sign method (https://arxiv.org/abs/1412.6572).

        Args:
            eps: Change of each pixel.
        """
        return cls(eps, eps, 1, start="image")

    def for_evaluation(self, steps: int) -> PGD:
        """Return PGD in the same ball for evaluation, with uniform random starts and short steps.

        Args:
            steps: Number of steps, each at most eps / 4 long.
        """
        return PGD(
            self.eps,
            min(self.step_size, self.eps / 4),
            steps,
            norm=self.norm,
            restarts=self.restarts,
            targeted=self.targeted,
            low=self.low,
            high=self.high,
        )

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, loss: Loss | None = None, key: tuple[int, ...] = ()
    ) -> Tensor:
        """Return adversarial images.

        Args:
            network: Maps images in pixel units to logits ``(N, C)``.
            images: Shape ``(N, C, H, W)``, values between ``low`` and ``high``; not changed.
            labels: Second argument of ``loss``: class indices ``(N,)``, or class probabilities ``(N, C)``.
            loss: Loss to maximize, one value per sample; None is cross-entropy.
            key: Non-negative integers that seed the random starts, e.g. ``(seed, epoch, batch, rank)``.

        Returns:
            Float32, with the images' shape; within ``eps`` of them, without gradient.
        """
        loss = loss or _cross_entropy
        mode = evaluation_mode(network) if self.mode == "evaluation" else contextlib.nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), mode:
            # Tensors from inference mode cannot be part of an autograd graph.
            images, labels = images.detach().float().clone(), labels.clone()
            generator = torch.Generator(images.device).manual_seed(derived_seed(Stream.ATTACK, *key))
            if self.restarts == 1:
                return self._climb(network, images, labels, loss, generator)
            best, highest = images, torch.full((len(images),), -torch.inf, device=images.device)
            for _ in range(self.restarts):
                found = self._climb(network, images, labels, loss, generator)
                with torch.no_grad():
                    value = loss(network(found), labels).float()
                value = -value if self.targeted else value
                better = value > highest
                best = torch.where(better.view(-1, 1, 1, 1), found, best)
                highest = torch.where(better, value, highest)
            return best

    def _climb(
        self, network: nn.Module, images: Tensor, labels: Tensor, loss: Loss, generator: torch.Generator
    ) -> Tensor:
        adversarial = images
        if self.start == "gaussian":  # not clipped, as in the authors' code; the steps are
            adversarial = images + 0.001 * _normal(images, generator)
        elif self.start == "uniform":
            adversarial = self._projected(images + self._offset(images, generator), images)
        for _ in range(self.steps):
            adversarial = adversarial.detach().requires_grad_()
            # The sum, not the mean: a sample's gradient must not depend on the batch size or underflow in half
            # precision.
            (gradient,) = torch.autograd.grad(loss(network(adversarial), labels).float().sum(), adversarial)
            step = gradient.sign() if self.norm == "linf" else gradient / _length(gradient)
            adversarial = adversarial.detach() + (-self.step_size if self.targeted else self.step_size) * step
            adversarial = self._projected(adversarial, images)
        return adversarial

    def _offset(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a point uniformly from the ball around 0."""
        options = {"generator": generator, "device": images.device, "dtype": images.dtype}
        if self.norm == "linf":
            return self.eps * (2 * torch.rand(images.shape, **options) - 1)
        direction = _normal(images, generator)
        radius = torch.rand(len(images), **options) ** (1 / images[0].numel())
        return self.eps * radius.view(-1, 1, 1, 1) * direction / _length(direction)

    def _projected(self, adversarial: Tensor, images: Tensor) -> Tensor:
        """Return the nearest point of the ball, with valid pixels."""
        if self.norm == "linf":
            adversarial = torch.minimum(torch.maximum(adversarial, images - self.eps), images + self.eps)
        else:
            change = adversarial - images
            adversarial = images + change * (self.eps / _length(change)).clamp(max=1)
        return adversarial.clamp(self.low, self.high)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _normal(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers, one per pixel."""
    return torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)


def _length(values: Tensor) -> Tensor:
    """Return the Euclidean norm of each image, shape ``(N, 1, 1, 1)``, above 0."""
    return values.flatten(1).norm(dim=1).clamp(min=torch.finfo(values.dtype).tiny).view(-1, 1, 1, 1)
