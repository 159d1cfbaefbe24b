"""The differentiable augmentation of DSA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.checks import check, not_negative
from ..core.errors import InputError
from ..core.sampling import Stream, numpy_generator
from .batches import random_crop_flip, random_cutout

Operation = Literal["color", "crop", "cutout", "flip", "scale", "rotate"]
OPERATIONS: tuple[Operation, ...] = ("color", "crop", "cutout", "flip", "scale", "rotate")


class SiameseAugmentation:
    """Differentiable siamese augmentation (https://arxiv.org/abs/2102.08259): every call applies one random operation.

    The default strengths are the authors' and apply to normalized images. Random numbers depend only on the ``key`` of
    a call, so batches of any size get the same transform from the same key.

    Args:
        operations: Operations to draw from, all equally likely. Leave out "flip" for digits and other images that
            flipping changes.
        brightness: Width of the range, centered at 0, of the number added to all pixels.
        saturation: Largest factor for the difference between a pixel's channels and their mean; the smallest is 0.
        contrast: Smallest factor for the difference between pixels and the image's mean; the largest is 1 more.
        crop: Largest shift in each direction, as a share of the image; new pixels are 0.
        cutout: Side of a square set to 0 at a random position, as a share of the image.
        scale: Largest factor of height and, independently, of width; the smallest is its inverse.
        rotate: Largest angle in degrees, in both directions.

    Raises:
        InputError: If there are no operations, an operation is unknown, or a strength is out of its range.
    """

    def __init__(
        self,
        operations: Sequence[Operation] = OPERATIONS,
        *,
        brightness: float = 1.0,
        saturation: float = 2.0,
        contrast: float = 0.5,
        crop: float = 0.125,
        cutout: float = 0.5,
        scale: float = 1.2,
        rotate: float = 15.0,
    ) -> None:
        unknown = set(operations) - set(OPERATIONS)
        if unknown or not operations:
            raise InputError(f"operations must be some of {', '.join(OPERATIONS)} but are {list(operations)}")
        not_negative(brightness=brightness, saturation=saturation, contrast=contrast, rotate=rotate)
        check(0 <= crop < 1, "crop", crop, "in [0, 1)")
        check(0 <= cutout <= 1, "cutout", cutout, "in [0, 1]")
        check(scale >= 1, "scale", scale, "at least 1")
        self.operations = tuple(operations)
        self.brightness = brightness
        self.saturation = saturation
        self.contrast = contrast
        self.crop = crop
        self.cutout = cutout
        self.scale = scale
        self.rotate = rotate

    def __call__(self, images: Tensor, key: Sequence[int], *, shared: bool = True) -> Tensor:
        """Return augmented images; the operation is differentiable.

        Args:
            images: Normalized, shape ``(N, C, H, W)``.
            key: Non-negative integers that determine the operation and its parameters.
            shared: True applies the same transform to all images, as in distillation. False shares only the operation
                and draws parameters per image, as in training on the distilled images.
        """
        source = numpy_generator(Stream.SIAMESE_AUGMENTATION, *key)
        operation = self.operations[source.integers(len(self.operations))]
        drawn = torch.from_numpy(source.random((1 if shared else len(images), 3), dtype=np.float32))
        randoms = drawn.to(images.device, non_blocking=True).expand(len(images), -1)
        return self.apply(images, operation, randoms)

    def each(self, images: Tensor, randoms: Tensor) -> Tensor:
        """Augment each image by a separately drawn operation.

        Args:
            images: Normalized, shape ``(N, C, H, W)``.
            randoms: Uniform in [0, 1), shape ``(N, 4)``: one for the choice of the operation, three for `apply`.
        """
        chosen = (randoms[:, 0] * len(self.operations)).long()[:, None, None, None]
        result = images
        # Apply all operations to all images: the host need not know the choice, and sets are small.
        for index, operation in enumerate(self.operations):
            result = torch.where(chosen == index, self.apply(images, operation, randoms[:, 1:]), result)
        return result

    def apply(self, images: Tensor, operation: Operation, randoms: Tensor) -> Tensor:
        """Augment by one operation.

        Args:
            images: Normalized, shape ``(N, C, H, W)``.
            operation: Name of the operation.
            randoms: Uniform in [0, 1), shape ``(N, 3)``; an operation uses only the columns it needs.

        Raises:
            InputError: If the images are not floating ``(N, C, H, W)``.
        """
        if images.ndim != 4 or not images.is_floating_point():
            raise InputError(
                f"images must be floating (N, C, H, W) but are {images.dtype} {tuple(images.shape)}:"
                " normalise them first"
            )
        size = images.shape[-1]
        if operation == "crop":
            return random_crop_flip(images, randoms, padding=int(size * self.crop + 0.5), mode="zero", flip=False)
        if operation == "cutout":
            return random_cutout(images, randoms[:, :2], size=int(size * self.cutout + 0.5))
        if operation == "flip":
            return torch.where((randoms[:, 0] < 0.5)[:, None, None, None], images.flip(3), images)
        first, second, third = (column[:, None, None, None] for column in randoms.to(images.dtype).unbind(1))
        if operation == "color":
            images = images + (first - 0.5) * self.brightness
            grey = images.mean(1, keepdim=True)
            images = (images - grey) * (second * self.saturation) + grey
            mean = images.mean((1, 2, 3), keepdim=True)
            return (images - mean) * (third + self.contrast) + mean
        zero = torch.zeros_like(first)
        if operation == "scale":
            across, down = (u * (self.scale - 1 / self.scale) + 1 / self.scale for u in (first, second))
            matrix = [across, zero, zero, zero, down, zero]
        else:
            angle = (first - 0.5) * (2 * np.pi / 180 * self.rotate)
            matrix = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero]
        grid = F.affine_grid(torch.cat(matrix, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)
