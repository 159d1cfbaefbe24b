"""Adversarial training: the network is trained on attacked images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from ..modules.attacks import PGD, SecondBatchNorm
from ..modules.core.checks import at_least, not_negative, one_of
from ..modules.core.errors import InputError
from ..modules.core.evaluation_mode import evaluation_mode
from ..modules.core.sampling import run_seed
from ..modules.losses import kd_loss, mart_terms
from ..modules.networks import to_memory_format
from ..modules.networks.normalized import Normalized, register_statistics, statistics_of_data
from .classification import Classification, _classes


class AdversarialClassification(Classification):
    """Trains a network to classify adversarially attacked images.

    The attack works in pixel units, whatever the data's normalization. Objectives that read the images, such as `LTD`
    and `Distillation`, get the natural images. With Mixup or CutMix the mixed image is attacked.

    Logged as by `Classification`, with these differences:

    - ``train/robust_accuracy``, on attacked images, replaces ``train/accuracy``.
    - ``val/accuracy`` and ``val/loss`` are measured on natural images.
    - ``val/robust_accuracy`` and ``val/robust_loss`` (cross-entropy) are measured on attacked images.
    - The same four values are logged for the test images.

    The best checkpoint has the highest ``val/robust_accuracy``, as robust accuracy often falls again during training
    (https://arxiv.org/abs/2002.11569).

    Args:
        network: A timm name, including ours (``cifar_resnet32``, ``convnet``, …), or a module that maps images to
            logits ``(N, num_classes)``.
        num_classes: Number of classes; on the command line it comes from the data.
        mean: Channel means that the data's normalization subtracts. If neither ``mean`` nor ``std`` is given, both come
            from the trainer's datamodule; without one they are 0 and 1.
        std: Channel standard deviations that the normalization divides by.
        attack: Attack that makes the training images from images in [0, 1]. None is `PGD` with default arguments, but
            with start "gaussian" for TRADES and MART.
        attack_loss: Loss that the training attack maximizes. "cross_entropy": cross-entropy with the labels.
            "divergence": Kullback-Leibler divergence from the prediction on the natural image, as in TRADES.
            "objective": the ``objective``. None is "divergence" if ``trades_beta`` is not 0, else "cross_entropy".
        eval_steps: Number of attack steps for validation and test images. They are attacked by PGD in the ball of
            ``attack``, maximizing cross-entropy, with a step size of at most eps/4, from random starts drawn from the
            run's seed.
        trades_beta: Weight of the divergence in TRADES (https://arxiv.org/abs/1901.08573); 0 trains on attacked images
            only. With TRADES, the loss is the objective on natural images plus ``trades_beta`` times the divergence
            between the predictions on natural and attacked images. The divergence is logged unweighted as
            ``divergence``. The authors use 6.
        mart_beta: Weight of the divergence in MART (https://openreview.net/forum?id=rklOg6EFwS), 0 for no MART. The
            objective is computed on the attacked images, and the terms of `mart_terms` are added. They are logged as
            ``margin`` and, unweighted, ``divergence``. The authors use 6 for a wide ResNet and 5 for a ResNet-18.
        batch_norm: How natural and attacked images share batch normalization if both are trained on. "alternate": two
            batches, natural images first; both update the running statistics. "repeated": the natural images then
            update them once more, as in the authors' code of TRADES. "shared": one batch. "dual": each kind has its own
            batch-norm layers (https://arxiv.org/abs/1911.09665). Evaluation and export use the layers of the attacked
            images.
        options: All other arguments of `Classification`.

    Raises:
        InputError: If an argument is out of range, the network is unknown or does not fit, or an attack is targeted.
            Also if the objective does not support the network, the soft labels of Mixup and CutMix, or ``batch_norm``,
            or MART is combined with TRADES or soft labels.
    """

    monitor = "val/robust_accuracy"
    train_accuracy = "robust_accuracy"
    _objects = (*Classification._objects, "attack")
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: str | nn.Module,
        num_classes: int,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        attack: PGD | None = None,
        attack_loss: Literal["cross_entropy", "divergence", "objective"] | None = None,
        eval_steps: int = 20,
        trades_beta: float = 0.0,
        mart_beta: float = 0.0,
        batch_norm: Literal["alternate", "repeated", "shared", "dual"] = "alternate",
        **options: Any,
    ) -> None:
        super().__init__(network, num_classes, **options)
        not_negative(trades_beta=trades_beta, mart_beta=mart_beta)
        if trades_beta and mart_beta:
            raise InputError(
                f"trades_beta {trades_beta} and mart_beta {mart_beta} are two methods: set one of them to 0"
            )
        if mart_beta and self.mixing is not None:
            raise InputError(
                f"mart_beta {mart_beta} needs class indices, but mixup and cutmix make soft labels: set both to 0"
            )
        pairs = bool(trades_beta or mart_beta)
        self.attack = attack or PGD(start="gaussian" if pairs else "uniform")
        if self.attack.targeted:
            raise InputError("attack is targeted, but the labels here are the right classes: set targeted to false")
        if self.attack.steps * self.attack.step_size < self.attack.eps:
            rank_zero_warn(
                f"attack.steps {self.attack.steps} of attack.step_size {self.attack.step_size:g} do not reach"
                f" attack.eps {self.attack.eps:g}: the attack is a weak one"
            )
        at_least(1, eval_steps=eval_steps)
        self.eval_attack = self.attack.for_evaluation(eval_steps)
        one_of(("alternate", "repeated", "shared", "dual"), batch_norm=batch_norm)
        if batch_norm != "alternate" and not pairs:
            raise InputError(
                f"batch_norm {batch_norm} is for training on natural and attacked images, but trades_beta is 0 and"
                " mart_beta too, which trains on attacked ones alone: raise one, or leave batch_norm out"
            )
        self.attack_loss = attack_loss or ("divergence" if trades_beta else "cross_entropy")
        if self.attack_loss not in _ATTACK_LOSSES:
            raise InputError(f"attack_loss must be one of {', '.join(_ATTACK_LOSSES)} but is {attack_loss!r}")
        if getattr(self.objective, "student", None) is not None:
            for name, value in (("batch_norm", batch_norm), ("attack_loss", self.attack_loss)):
                if value in ("shared", "objective"):
                    raise InputError(
                        f"{name} {value} does not go with {self.objective.title}, which reads features of a pass over"
                        " the natural images alone: leave it out"
                    )
        self.trades_beta = trades_beta
        self.mart_beta = mart_beta
        self.batch_norm = batch_norm
        self.natural_norm = SecondBatchNorm(self.network) if batch_norm == "dual" else None
        register_statistics(self, mean, std, in_chans=self.in_chans)
        self._key: tuple[int, ...] = ()
        self._attacked: Tensor | None = None
        self.robust_accuracy = nn.ModuleDict(
            {stage: MulticlassAccuracy(num_classes, average="micro", validate_args=False) for stage in ("val", "test")}
        )

    @property
    def pixel_network(self) -> Normalized:
        """The network for images in pixel units; it shares layers and statistics with the recipe."""
        return Normalized(self.network, self.mean, self.std, memory_format=self.memory_format)

    def setup(self, stage: str) -> None:
        """Take mean and std from the datamodule if they were not given."""
        super().setup(stage)
        statistics_of_data(self, getattr(self.trainer, "datamodule", None))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch, as a scalar."""
        self._key = (run_seed(), self.current_epoch, batch_idx, self.global_rank)
        return super().training_step(batch, batch_idx)

    def _training_losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        images = to_memory_format(images, self.memory_format)
        context = self._context(images, labels)
        # A dry run keeps its attacked images for the real step, which uses the same batch.
        if self._attacked is None or self.is_dry_run:
            self._attacked = self._attack(images, labels, context)
        attacked = self._normalised(self._attacked)
        if not self.is_dry_run:
            self._attacked = None
        if not (self.trades_beta or self.mart_beta):
            logits = self(attacked)
            return logits, *self.objective.parts(logits, labels, context)
        if self.mart_beta:
            return self._mart_losses(images, attacked, labels, context)
        if self.batch_norm == "shared":
            natural, logits = self(torch.cat([images, attacked])).chunk(2)
            losses, terms = self.objective.parts(natural, labels, context)
        else:
            natural = self._natural(images)
            # Compute the objective before the next pass, which would overwrite the features of the natural images.
            losses, terms = self.objective.parts(natural, labels, context)
            logits = self(attacked)
        self._repeat(images)
        divergence = kd_loss(logits, natural, temperature=1.0)
        return logits, losses + self.trades_beta * divergence, {**terms, "divergence": divergence}

    def _mart_losses(
        self, images: Tensor, attacked: Tensor, labels: Tensor, context: Any
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the same as `_training_losses`, for MART."""
        if self.batch_norm == "shared":
            natural, logits = self(torch.cat([images, attacked])).chunk(2)
        else:
            natural = self._natural(images)
            logits = self(attacked)
        losses, terms = self.objective.parts(logits, labels, context)
        self._repeat(images)
        margin, divergence = mart_terms(logits, natural, labels)
        losses = losses + margin + self.mart_beta * divergence
        return logits, losses, {**terms, "margin": margin, "divergence": divergence}

    def _natural(self, images: Tensor) -> Tensor:
        """Return the logits of natural images, computed as a separate batch."""
        return self(images) if self.natural_norm is None else self.natural_norm(self.network, images)

    def _repeat(self, images: Tensor) -> None:
        """Update the running statistics with the natural images once more."""
        if self.batch_norm == "repeated":
            with torch.no_grad():
                self(images)

    def _attack(self, images: Tensor, labels: Tensor, context: Any) -> Tensor:
        """Return attacked training images in pixel units."""
        network, pixels = self.pixel_network, self._pixels(images)
        loss: Callable[[Tensor, Tensor], Tensor] | None = None
        if self.attack_loss == "objective":
            loss = partial(self.objective, context=context)
        elif self.attack_loss == "divergence":
            with torch.no_grad(), evaluation_mode(network):
                loss = partial(_divergence, natural=network(pixels))
        return self.attack(network, pixels, labels, loss=loss, key=self._key)

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str, metrics: MetricCollection) -> None:
        super()._evaluate(batch, stage, metrics)
        images, labels = batch
        attacked = self.eval_attack(self.pixel_network, self._pixels(images), labels, key=(run_seed(),))
        logits = self(self._normalised(attacked)).float()
        loss = F.cross_entropy(logits, labels)
        self.log(f"{stage}/robust_loss", loss, batch_size=len(images), sync_dist=True)
        accuracy: Any = self.robust_accuracy[stage]
        accuracy.update(logits, _classes(labels))
        self.log(f"{stage}/robust_accuracy", accuracy, prog_bar=stage == "val", batch_size=len(images))

    def _checked(self, batch: Any, stage: str) -> tuple[Tensor, Tensor]:
        first = stage not in self._seen_stages
        images, labels = super()._checked(batch, stage)
        if self.mart_beta and stage == "train" and labels.ndim > 1:
            raise InputError(
                f"labels must be class indices (N,) for MART but have shape {tuple(labels.shape)}: give such labels, or"
                " set mart_beta to 0"
            )
        if first and len(images):
            pixels = self._pixels(images)
            low, high = pixels.min().item(), pixels.max().item()
            tolerance = max(1e-3, 4 * torch.finfo(images.dtype).eps)
            if low < self.attack.low - tolerance or high > self.attack.high + tolerance:
                raise InputError(
                    f"attack.low {self.attack.low} and attack.high {self.attack.high} must be the range of the pixels,"
                    f" but a {stage} batch has pixels from {low:.3f} to {high:.3f}: set mean and std to what the data"
                    " is normalised by, or, where the pixels themselves leave the range as those of a distilled set do,"
                    " cut them off (--data.clip true of DistilledImages)"
                )
        return images, labels

    def _pixels(self, images: Tensor) -> Tensor:
        return images * self.std + self.mean

    def _normalised(self, pixels: Tensor) -> Tensor:
        return ((pixels - self.mean) / self.std).to(self.mean.dtype)


def _divergence(logits: Tensor, labels: Tensor, *, natural: Tensor) -> Tensor:
    return kd_loss(logits, natural, temperature=1.0)


_ATTACK_LOSSES = ("cross_entropy", "divergence", "objective")
