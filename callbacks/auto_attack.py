"""AutoAttack at the end of a test."""

from __future__ import annotations

import math
import random
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from ..modules.attacks import load_autoattack, masking_signs, robustness
from ..modules.core.checks import check, positive
from ..modules.core.errors import InputError
from ..modules.networks.normalized import Normalized, channel_statistics
from ._once import refuse_second


class AutoAttack(Callback):
    """Attacks test images with FGSM, PGD and AutoAttack, and checks for masked gradients.

    Works with any LightningModule if each batch is a pair of images and class indices, and ``forward`` returns logits.
    It runs at the end of `recipes test` and needs the extra ``attacks``.

    It logs the accuracies on the attacked images: ``test/autoattack_accuracy``, ``test/fgsm_accuracy``,
    ``test/pgd20_accuracy``, …. It also logs ``test/masking_signs``, the number of failed checks. `modules.attacks`
    describes the checks.

    Args:
        images: Number of test images to attack, drawn at random but the same in every run on this test set. The
            processes share the number. None attacks all of them, as papers do.
        eps: Radius of the attacks in pixel units. None takes the radius of the module's ``attack``, or 8/255 if it has
            none.
        norm: Norm of the attacks: the largest change of a pixel ("linf"), or the Euclidean norm of an image's change
            ("l2"). None takes the norm of the module's ``attack``, or "linf" if it has none.
        mean: Channel means that the data's normalization subtracts. None asks the data module.
        std: Channel standard deviations that it divides by. None asks the data module.
        batch_size: Images per attack batch.

    Raises:
        InputError: If an argument is out of range. At the start of a test: if the extra is not installed, ``mean`` and
            ``std`` are unknown, the module has no ``forward``, or the callback is given twice.
    """

    def __init__(
        self,
        images: int | None = 1000,
        *,
        eps: float | None = None,
        norm: Literal["linf", "l2"] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        batch_size: int = 250,
    ) -> None:
        positive(images=images, eps=eps, batch_size=batch_size)
        check(norm in ("linf", "l2", None), "norm", norm, "linf or l2")
        if (mean is None) != (std is None):
            raise InputError(f"mean and std must be given together, but they are {mean} and {std}")
        if mean is not None:
            channel_statistics(mean, std, in_chans=len(mean))
        self.images = images
        self.eps = eps
        self.norm = norm
        self.mean = mean
        self.std = std
        self.batch_size = batch_size
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._seen = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before the test that the attack is possible."""
        if stage != "test":
            return
        refuse_second(trainer, self)
        if not is_overridden("forward", pl_module):
            raise InputError(
                f"AutoAttack attacks the logits of forward, which {type(pl_module).__name__} does not have: leave it"
                " out, and test a classifier with it"
            )
        load_autoattack()
        self._statistics(trainer)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the images of an earlier test."""
        self._kept, self._seen = [], 0
        self._choice = random.Random(trainer.global_rank)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Keep a uniform random sample of the images seen so far (reservoir sampling)."""
        if not isinstance(batch, (tuple, list)) or len(batch) != 2 or batch[0].ndim != 4 or batch[1].ndim != 1:
            raise InputError("AutoAttack needs batches that are pairs of images (N, C, H, W) and class indices (N,)")
        # The share of one process, rounded up.
        wanted = math.inf if self.images is None else -(-self.images // trainer.world_size)
        for image, label in zip(*(part.cpu() for part in batch), strict=True):
            self._seen += 1
            if len(self._kept) < wanted:
                self._kept.append((image.clone(), label))
            elif (place := self._choice.randrange(self._seen)) < wanted:
                self._kept[place] = (image.clone(), label)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attack the kept images and log the results."""
        if not self._kept:
            raise InputError("AutoAttack found no test images: trainer.limit_test_batches leaves none")
        images, labels = (torch.stack(parts) for parts in zip(*self._kept, strict=True))
        self._kept = []
        mean, std = self._statistics(trainer)
        attack = getattr(pl_module, "attack", None)
        eps = self.eps or getattr(attack, "eps", 8 / 255)
        norm: Any = self.norm or getattr(attack, "norm", "linf")
        number = int(_sum(trainer, torch.tensor([float(len(images))], device=pl_module.device)))
        _say(f"AutoAttack, {norm}, eps {eps:.4f}, on {number:,} test images: this takes a while")
        # Tensors made in inference mode cannot be part of a graph.
        with torch.inference_mode(False):
            network = Normalized(pl_module, mean, std).to(pl_module.device)
            found = robustness(
                network,
                images.clone() * network.std.cpu() + network.mean.cpu(),
                labels.clone(),
                eps=eps,
                norm=norm,
                batch_size=self.batch_size,
                seed=trainer.global_rank,
            )
        right = torch.tensor([value * len(images) for value in found.accuracies.values()], device=pl_module.device)
        accuracies = dict(zip(found.accuracies, (_sum(trainer, right) / number).tolist(), strict=True))
        signs = masking_signs(accuracies) + found.warnings
        for name, value in accuracies.items():
            pl_module.log(f"test/{name}_accuracy", value, batch_size=number)
        pl_module.log("test/masking_signs", float(len(signs)), batch_size=number)
        for sign in signs:
            _say(f"warning: gradients may be masked: {sign}")
        if not signs:
            _say("no sign of masked gradients was found")
        _say(f"accuracy under AutoAttack {accuracies['autoattack']:.4f}, clean {accuracies['clean']:.4f}")

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


def _sum(trainer: Trainer, values: Tensor) -> Tensor:
    """Sum over all processes."""
    return trainer.strategy.reduce(values, reduce_op="sum") if trainer.world_size > 1 else values  # type: ignore


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
