"""The contract between a recipe and its objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Objective(nn.Module):
    """Base of everything a recipe can minimise.

    A recipe calls :meth:`context` once per batch and :meth:`forward` once per classifier: once in
    `Classification`, once per local head in local learning. Labels are class indices ``(N,)`` or, after
    Mixup/CutMix, class probabilities ``(N, C)``.
    """

    accepts_soft_labels: bool = True
    """False makes a recipe with Mixup/CutMix refuse this objective when it is built."""

    repeats_steps: bool = True
    """False makes callbacks that compute a step twice, such as `AWP`, refuse the run."""

    epoch: int = 0
    """The epoch of the run, from 0; the recipe sets it before each batch."""

    run_epochs: int | None = None
    """Epochs of the run, which shares of the run are taken of; the recipe sets it. None is outside of a run."""

    class_counts: Sequence[int] | None = None
    """Training images per class, set by the recipe when a run starts, where the data knows them."""

    batch_indices: Tensor | None = None
    """Index in the training set of each sample of a training batch ``(N,)``, set by the recipe; None where the
    datamodule does not know it."""

    @property
    def title(self) -> str:
        """Name of the objective in messages."""
        return type(self).__name__

    def attach(self, network: nn.Module, *, num_classes: int, in_chans: int, image_size: int | None) -> None:
        """Get to know the network to train, once, when a recipe is built; nothing by default.

        Args:
            network: Maps images ``(N, in_chans, H, W)`` to logits ``(N, num_classes)``.
            num_classes: Number of classes.
            in_chans: Channels of an image.
            image_size: Height and width of an image in pixels; None if the recipe does not know.

        Raises:
            InputError: If the objective does not go with the network.
        """

    def meet_data(
        self,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Get to know the data, when a recipe's run starts; nothing by default.

        Args:
            mean: Mean per channel that the images are normalised by; None if the data does not say it.
            std: Standard deviation per channel, likewise.
            class_names: Names of the classes, in the order of the labels; None if the data does not say them.

        Raises:
            InputError: If the objective does not go with the data.
        """

    def check_run(self) -> None:
        """Warn, when training starts, of settings that a run of ``run_epochs`` does not reach; nothing by default."""

    def teacher_logits(self, images: Tensor) -> Tensor | None:
        """Return a teacher's logits ``(N, C)`` of the student's classes; None, by default, for no such teacher."""
        return None

    def context(self, images: Tensor, labels: Tensor) -> Any:
        """Compute further inputs of the losses, e.g. teacher logits, without gradients.

        Args:
            images: Shape ``(N, C, H, W)``, as the network sees them.
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.

        Returns:
            Anything; handed to :meth:`forward` as it is. None by default.
        """
        return None

    def forward(self, logits: Tensor, labels: Tensor, context: Any = None) -> Tensor:
        """One loss per sample; no side effects.

        Args:
            logits: Shape ``(N, C)``.
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.
            context: The result of :meth:`context` for the same batch.

        Returns:
            Losses, shape ``(N,)``.
        """
        raise NotImplementedError

    def parts(self, logits: Tensor, labels: Tensor, context: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of :meth:`forward`, and the terms they are the weighted sum of, which a recipe logs.

        Args:
            logits: Shape ``(N, C)``.
            labels: Class indices ``(N,)`` or probabilities ``(N, C)``.
            context: The result of :meth:`context` for the same batch.

        Returns:
            Losses ``(N,)``, and unweighted terms ``(N,)`` by name; none by default.
        """
        return self(logits, labels, context), {}

    def close(self) -> None:
        """Write data that outlives a run; the recipe calls it when a run ends."""
