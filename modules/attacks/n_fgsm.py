"""N-FGSM: one signed gradient step from strong noise, without projection."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..core.checks import not_negative
from .pgd import PGD


class NFGSM(PGD):
    """Noisy fast gradient sign method (https://arxiv.org/abs/2202.01181), a single-step attack for training.

    ``x' = clip(z + step_size · sign(∇L(z)))`` with ``z = clip(x + noise · eps · u)``. Here u is uniform in [-1, 1] for
    every pixel, and clip limits pixels to [``low``, ``high``]. Neither z nor x' is projected to the ball, so a pixel
    changes by up to ``noise · eps + step_size``. Validation and test images are attacked by PGD inside the ball.

    Args:
        eps: Radius of the ball in which the network is to be robust.
        step_size: Length of the step; None is eps, as published.
        noise: Largest noise of a pixel, in units of eps. The default is the authors'.
        low: Smallest valid pixel value.
        high: Largest valid pixel value.
        mode: Mode of the network during the attack, see `PGD`; the authors use "unchanged".

    Raises:
        InputError: If an argument is out of its range.

    Examples:
        >>> layers = torch.nn.Flatten(), torch.nn.Linear(12, 2)
        >>> network, images = torch.nn.Sequential(*layers), torch.rand(4, 3, 2, 2)
        >>> attack = NFGSM(eps=8 / 255)
        >>> attack(network, images, torch.tensor([0, 1, 0, 1]), key=(0, 0, 0)).shape
        torch.Size([4, 3, 2, 2])
    """

    def __init__(
        self,
        eps: float = 8 / 255,
        step_size: float | None = None,
        *,
        noise: float = 2.0,
        low: float = 0.0,
        high: float = 1.0,
        mode: Literal["evaluation", "unchanged"] = "evaluation",
    ) -> None:
        not_negative(noise=noise)
        super().__init__(eps, eps if step_size is None else step_size, 1, low=low, high=high, mode=mode)
        self.noise = noise

    def _offset(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.noise * super()._offset(images, generator)

    def _projected(self, adversarial: Tensor, images: Tensor) -> Tensor:
        """Return the images with valid pixels; the ball does not limit them."""
        return adversarial.clamp(self.low, self.high)
