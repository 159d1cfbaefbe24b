"""Base class of training objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Objective(nn.Module):
    """Base class of the losses that a recipe can minimize.

    A recipe calls :meth:`context` once per batch and :meth:`forward` once per classifier: once in `Classification`,
    once per local head in local learning. Labels are class indices ``(N,)`` or, after Mixup/CutMix, class probabilities
    ``(N, C)``.
    """

    accepts_soft_labels: bool = True
    """If False, a recipe with Mixup/CutMix refuses this objective when it is built."""

    repeats_steps: bool = True
    """If False, callbacks that compute a step twice, such as `AWP`, refuse the run."""

    epoch: int = 0
    """Current epoch, from 0; the recipe sets it before each batch."""

    run_epochs: int | None = None
    """Number of epochs of the run, set by the recipe; None outside a run."""

    class_counts: Sequence[int] | None = None
    """Number of training images per class, set by the recipe when a run starts; None if unknown."""

    batch_indices: Tensor | None = None
    """Indices ``(N,)`` of a training batch's samples in the training set, set by the recipe; None if unknown."""

    @property
    def title(self) -> str:
        """Name of the objective in messages."""
        return type(self).__name__

    def attach(self, network: nn.Module, *, num_classes: int, in_chans: int, image_size: int | None) -> None:
        """Receive the network to train, once, when a recipe is built; does nothing by default.

        Args:
            network: Maps images ``(N, in_chans, H, W)`` to logits ``(N, num_classes)``.
            num_classes: Number of classes.
            in_chans: Number of image channels.
            image_size: Height and width of an image in pixels; None if unknown.

        Raises:
            InputError: If the objective does not fit the network.
        """

    def meet_data(
        self,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Receive facts about the data, when a run starts; does nothing by default.

        Args:
            mean: Mean per channel that images are normalized with; None if unknown.
            std: Standard deviation per channel that images are normalized with; None if unknown.
            class_names: Names of the classes, in the order of the labels; None if unknown.

        Raises:
            InputError: If the objective does not fit the data.
        """

    def check_run(self) -> None:
        """Warn, when training starts, about options that a run of ``run_epochs`` never reaches."""

    def teacher_logits(self, images: Tensor) -> Tensor | None:
        """Return a teacher's logits ``(N, C)`` for the student's classes; None, the default, means no such teacher."""
        return None

    def context(self, images: Tensor, labels: Tensor) -> Any:
        """Compute the further inputs of the losses, e.g. teacher logits, without gradients.

        Args:
            images: Shape ``(N, C, H, W)``, as the network gets them.
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.

        Returns:
            Any object; it is passed to :meth:`forward`. None by default.
        """
        return None

    def forward(self, logits: Tensor, labels: Tensor, context: Any = None) -> Tensor:
        """Compute one loss per sample, without side effects.

        Args:
            logits: Shape ``(N, C)``.
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.
            context: The result of :meth:`context` for the same batch.

        Returns:
            Losses, shape ``(N,)``.
        """
        raise NotImplementedError

    def parts(self, logits: Tensor, labels: Tensor, context: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses of :meth:`forward` and the terms of their weighted sum, for the log.

        Args:
            logits: Shape ``(N, C)``.
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.
            context: The result of :meth:`context` for the same batch.

        Returns:
            Losses ``(N,)``, and unweighted terms ``(N,)`` by name; no terms by default.
        """
        return self(logits, labels, context), {}

    def close(self) -> None:
        """Save data that later runs need; the recipe calls it when a run ends."""
