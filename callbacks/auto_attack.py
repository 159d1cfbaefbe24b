"""AutoAttack as the last part of a test."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ..modules.errors import InputError
from ..modules.normalised import Normalised
from ..modules.robustness import load_autoattack, robustness


class AutoAttack(Callback):
    """Attacks test images by FGSM, PGD and AutoAttack, and says whether the result can be believed.

    For any LightningModule whose batches are pairs of images and class indices and whose ``forward`` gives logits. It
    runs at the end of `recipes test`, and logs ``test/autoattack_accuracy``, ``test/fgsm_accuracy``,
    ``test/pgd20_accuracy``, …, of the images it attacked, and ``test/masking_signs``, the number of checks that failed;
    `modules.robustness` says what they are. It needs the extra ``attacks``.

    Args:
        images: Number of test images, the first of each process's share of them; None is all, as published results
            are.
        eps: Radius of the attacks in pixel units.
        norm: Shape of the ball: the largest change of a pixel ("linf"), or the Euclidean length of all changes of an
            image ("l2").
        mean: What the data subtracts from each channel of its pixels; None asks the data.
        std: What it then divides each channel by; None asks the data.
        batch_size: Images attacked at once.

    Raises:
        InputError: If ``images`` is not positive, or, when a test starts, the extra is not installed or the data does
            not say its ``mean`` and ``std``.
    """

    def __init__(
        self,
        images: int | None = 1000,
        *,
        eps: float = 8 / 255,
        norm: Literal["linf", "l2"] = "linf",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        batch_size: int = 250,
    ) -> None:
        for name, value in (("images", images), ("eps", eps), ("batch_size", batch_size)):
            if value is not None and not value > 0:
                raise InputError(f"{name} must be positive but is {value}")
        self.images = images
        self.eps = eps
        self.norm: Literal["linf", "l2"] = norm
        self.mean = mean
        self.std = std
        self.batch_size = batch_size
        self._batches: list[tuple[Tensor, Tensor]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out whether it can be done, before the test."""
        if stage != "test":
            return
        load_autoattack()
        self._statistics(trainer)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._batches = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Keep the images."""
        images, labels = batch
        if labels.ndim != 1:
            raise InputError(f"AutoAttack needs labels that are class indices (N,), but they are {tuple(labels.shape)}")
        kept = sum(len(labels) for _, labels in self._batches)
        # A share for each process, the first ones rounded up.
        wanted = None if self.images is None else (self.images + trainer.world_size - 1) // trainer.world_size - kept
        if wanted is None or wanted > 0:
            self._batches.append((images[:wanted].cpu(), labels[:wanted].cpu()))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attack them."""
        images, labels = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        self._batches = []
        mean, std = self._statistics(trainer)
        _say(f"AutoAttack, {self.norm}, eps {self.eps:.4f}, on {len(images):,} test images: this takes a while")
        # What is made in inference mode cannot be part of a graph.
        with torch.inference_mode(False):
            network = Normalised(pl_module, mean, std).to(pl_module.device)
            result = robustness(
                network,
                images.clone() * network.std.cpu() + network.mean.cpu(),
                labels.clone(),
                eps=self.eps,
                norm=self.norm,
                batch_size=self.batch_size,
                seed=trainer.global_rank,
            )
        for name, value in result.accuracies.items():
            pl_module.log(f"test/{name}_accuracy", value, batch_size=len(images), sync_dist=True)
        pl_module.log("test/masking_signs", float(len(result.doubts)), sync_dist=True, reduce_fx="max")
        for doubt in result.doubts:
            _say(f"warning: gradients may be masked: {doubt}")
        if not result.doubts:
            _say("no sign of masked gradients was found")
        _say(f"accuracy under AutoAttack {result.accuracies['autoattack']:.4f}, clean {result.accuracies['clean']:.4f}")

    def _statistics(self, trainer: Trainer) -> tuple[list[float], list[float]]:
        data = getattr(trainer, "datamodule", None)
        mean = self.mean if self.mean is not None else getattr(data, "mean", None)
        std = self.std if self.std is not None else getattr(data, "std", None)
        if mean is None or std is None:
            raise InputError(
                f"{type(data).__name__} does not say its mean and std: give AutoAttack's own, mean [0, 0, 0] and"
                " std [1, 1, 1] for images in pixel units"
            )
        return list(mean), list(std)


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
