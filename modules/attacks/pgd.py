"""Adversarial images by projected gradient steps."""

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
"""Losses ``(N,)`` of logits ``(N, C)`` and the labels that the attack was given."""


class PGD:
    """Projected gradient ascent on a loss, within a ball around each image (https://arxiv.org/abs/1706.06083).

    Images are in pixel units, and so are ``eps`` and ``step_size``: a network that wants normalised images has to
    normalise them itself. One step without a random start is the fast gradient sign method, :meth:`fgsm`. One step
    from a uniform start is FGSM-RS (https://arxiv.org/abs/2001.03994), whose authors use a ``step_size`` of 1.25 eps.

    By default the network is in evaluation mode during the attack, so its batch statistics neither count nor change.
    Modes, gradients and global random generators are afterwards as they were. Gradients are taken of the images alone.
    Under autocast the passes are in its precision, images and steps in float32.

    Args:
        eps: Radius of the ball; 0 gives the images back. This default and the next two are those of the CIFAR-10
            benchmarks of robust training; for the L2 norm they take an eps of 0.5.
        step_size: Length of a step.
        steps: Number of steps.
        norm: Shape of the ball: the largest change of a pixel ("linf"), or the Euclidean length of all changes of an
            image ("l2").
        start: Where to begin: at a random point, drawn uniformly from the ball ("uniform"), beside the image, which is
            where a standard normal number times 0.001 is added to each of its pixels ("gaussian", as in TRADES,
            https://arxiv.org/abs/1901.08573), or at the image ("image").
        restarts: Number of beginnings, of which each image keeps the one with the highest loss.
        targeted: Labels say what the network is to answer, and the loss is lowered.
        low: Least value of a pixel.
        high: Greatest value of a pixel.
        mode: Mode of the network during the attack: "evaluation", or "unchanged" to leave it as it is. "unchanged" in
            training is the code of FGSM-RS, N-FGSM and of AWP without TRADES: batch normalization uses the statistics
            of the batch, each pass moves the running ones, and dropout draws from the global generators. Recipes
            attack validation and test images in evaluation mode.

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
        """The fast gradient sign method (https://arxiv.org/abs/1412.6572).

        Args:
            eps: Change of each pixel.
        """
        return cls(eps, eps, 1, start="image")

    def for_evaluation(self, steps: int) -> PGD:
        """Return PGD in the same ball, to measure by: from random starts, and with short steps.

        Args:
            steps: Number of steps, each of at most a quarter of eps.
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
        """Adversarial images.

        Args:
            network: Maps images in pixel units to logits ``(N, C)``.
            images: Shape ``(N, C, H, W)``, values between ``low`` and ``high``; left as they are.
            labels: What ``loss`` compares logits with: class indices ``(N,)``, or class probabilities ``(N, C)``.
            loss: What is raised, one loss per sample; None is cross-entropy.
            key: Non-negative integers that the random starts depend on, e.g. ``(seed, epoch, batch, rank)``.

        Returns:
            Float32, the images' shape; within ``eps`` of them, without gradient.
        """
        loss = loss or _cross_entropy
        mode = evaluation_mode(network) if self.mode == "evaluation" else contextlib.nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), mode:
            # What was made in inference mode cannot be part of a graph.
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
        if self.start == "gaussian":  # not cut off, as in the authors' code; the steps are
            adversarial = images + 0.001 * _normal(images, generator)
        elif self.start == "uniform":
            adversarial = self._projected(images + self._offset(images, generator), images)
        for _ in range(self.steps):
            adversarial = adversarial.detach().requires_grad_()
            # The sum and not the mean: a sample's step must not depend on the size of the batch, nor vanish in half
            # precision.
            (gradient,) = torch.autograd.grad(loss(network(adversarial), labels).float().sum(), adversarial)
            step = gradient.sign() if self.norm == "linf" else gradient / _length(gradient)
            adversarial = adversarial.detach() + (-self.step_size if self.targeted else self.step_size) * step
            adversarial = self._projected(adversarial, images)
        return adversarial

    def _offset(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A point of the ball around 0, drawn uniformly."""
        options = {"generator": generator, "device": images.device, "dtype": images.dtype}
        if self.norm == "linf":
            return self.eps * (2 * torch.rand(images.shape, **options) - 1)
        direction = _normal(images, generator)
        radius = torch.rand(len(images), **options) ** (1 / images[0].numel())
        return self.eps * radius.view(-1, 1, 1, 1) * direction / _length(direction)

    def _projected(self, adversarial: Tensor, images: Tensor) -> Tensor:
        """The nearest point of the ball, with pixels of the valid range."""
        if self.norm == "linf":
            adversarial = torch.minimum(torch.maximum(adversarial, images - self.eps), images + self.eps)
        else:
            change = adversarial - images
            adversarial = images + change * (self.eps / _length(change)).clamp(max=1)
        return adversarial.clamp(self.low, self.high)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _normal(images: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, one for each pixel."""
    return torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)


def _length(values: Tensor) -> Tensor:
    """Euclidean length of each image, shape ``(N, 1, 1, 1)``, never 0."""
    return values.flatten(1).norm(dim=1).clamp(min=torch.finfo(values.dtype).tiny).view(-1, 1, 1, 1)
