"""Supervised classification: one network, one objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from ..modules.artifacts.starting_weights import start_from
from ..modules.augmentation.mixing import Mixing
from ..modules.core.compiling import compile_network
from ..modules.core.errors import InputError
from ..modules.core.lr_schedules import RunSchedule
from ..modules.core.metrics import GroupAccuracy
from ..modules.core.run_shares import check_epochs, in_epochs, warn_if_unreached
from ..modules.core.running_means import RunningMeans
from ..modules.core.sampling import run_seed
from ..modules.exact_resume import ExactResume
from ..modules.lightning_private import has_written_hyperparameters
from ..modules.networks import create_network, fastest_memory_format, to_memory_format
from ..modules.objectives import CrossEntropy, Objective
from ..modules.optimizers.parameter_groups import FoundRate, parameter_groups, scale_rates
from ..modules.sample_weighting import SampleWeighting
from ._run_facts import data_facts, run_epochs, run_length


class Classification(SampleWeighting, LightningModule):
    """Trains a network to classify images.

    A batch is a pair of images ``(N, C, H, W)`` and labels: class indices ``(N,)`` or class probabilities ``(N, C)``.

    Logged once an epoch: ``train/loss``, ``train/accuracy``, ``val/loss``, ``val/accuracy``, ``test/loss``,
    ``test/accuracy``. With 20 or more classes also ``val/accuracy_top5`` and ``test/accuracy_top5``. Logged every
    ``log_every_n_steps`` steps: ``train/loss_step`` and ``train/accuracy_step``. Accuracies are in [0, 1]. The terms of
    an objective are logged unweighted under their names, e.g. ``train/kd``.

    Args:
        network: A timm name, including ours (``cifar_resnet32``, ``convnet``, …), or a module that maps images to
            logits ``(N, num_classes)``.
        num_classes: Number of classes; on the command line it comes from the data.
        in_chans: Channels of an image; on the command line it comes from the data.
        image_size: Height and width of an image in pixels, for networks that depend on it (``convnet``, vision
            transformers); on the command line it comes from the data.
        network_args: Further arguments of the timm network, e.g. ``{drop_path_rate: 0.1}``.
        weights: File with the network's initial weights, e.g. a run's ``best.ckpt``; see `start_from`.
        objective: Per-sample loss to minimize. Default: cross-entropy.
        optimizer: Called with the parameters. Default: SGD, rate 0.1, Nesterov momentum 0.9, weight decay 5e-4 (the
            setting of wide residual networks, https://arxiv.org/abs/1605.07146).
        decay_biases_and_norms: If False, no weight decay of biases, norms and parameters that the network exempts.
        layer_decay: Ratio of a layer's learning rate to the next layer's rate. None uses one rate.
        parameter_options: Options of parameters by patterns of their names, e.g. ``{"*.head.*": {lr: 0.01}}``.
        lr_scheduler: Called with the optimizer. None keeps the rate constant.
        lr_interval: Whether the scheduler steps once per epoch or per optimizer step.
        mixup: Beta parameter of Mixup (https://arxiv.org/abs/1710.09412); 0 is off.
        cutmix: Beta parameter of CutMix (https://arxiv.org/abs/1905.04899); 0 is off.
        mix_probability: Share of the training batches that Mixup or CutMix is applied to.
        mix_epochs: Length of the first part of the run, with Mixup and CutMix: a share of the run, e.g. 0.9, or a
            number of epochs, e.g. 1100. None is the whole run.
        class_groups: First and last class (inclusive) of groups with a separate accuracy, e.g. ``{head: [0, 2], mid:
            [3, 6], tail: [7, 9]}``, logged as ``val/accuracy_head``, …. None is no groups.
        channels_last: Use the channels-last memory format (only a matter of speed). None uses it for convolutional
            networks.
        compile: Run the network through `torch.compile`.

    Raises:
        InputError: If the network is unknown or does not fit, or a group's classes do not exist. Also if the objective
            does not support the network or the soft labels of Mixup and CutMix.
    """

    monitor = "val/accuracy"
    """Logged value of the best checkpoint; higher is better."""
    monitor_mode = "max"

    learning_rate = FoundRate()

    train_accuracy = "accuracy"
    """Name of the training accuracy in the log, after ``train/``."""

    _objects: tuple[str, ...] = ("objective", "optimizer", "lr_scheduler")
    """Arguments that are objects, not plain values."""

    def __init__(
        self,
        network: str | nn.Module,
        num_classes: int,
        *,
        in_chans: int = 3,
        image_size: int | None = None,
        network_args: dict[str, Any] | None = None,
        weights: str | None = None,
        objective: Objective | None = None,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.SGD(
            parameters, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
        ),
        decay_biases_and_norms: bool = True,
        layer_decay: float | None = None,
        parameter_options: dict[str, dict[str, Any]] | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mix_probability: float = 1.0,
        mix_epochs: int | float | None = None,
        class_groups: dict[str, tuple[int, int]] | None = None,
        channels_last: bool | None = None,
        compile: bool = False,  # noqa: A002, Lightning's and torch's own word
    ) -> None:
        super().__init__()
        if num_classes is None or num_classes < 2:
            raise InputError(f"num_classes must be at least 2 but is {num_classes}: set it, as the data does not say")
        # The command line stores the arguments as written. Objects given in Python are left out, as a checkpoint holds
        # only plain values.
        objects = [] if has_written_hyperparameters() else list(self._objects)
        objects += ["network"] if isinstance(network, nn.Module) else []
        self.save_hyperparameters(ignore=objects, logger=False)
        self.network: nn.Module
        if isinstance(network, str):
            self.network = create_network(
                network,
                num_classes=num_classes,
                in_chans=in_chans,
                network_args=network_args or {},
                image_size=image_size,
            )
        elif network_args:
            raise InputError(f"network_args {network_args} need network to be a name, but it is a module")
        else:
            self.network = network
        self.weights = weights
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.objective = objective if objective is not None else CrossEntropy()
        self.optimizer = optimizer
        self.grouping: dict[str, Any] = {
            "decay_biases_and_norms": decay_biases_and_norms,
            "layer_decay": layer_decay,
            "parameter_options": parameter_options,
        }
        self.lr_scheduler = lr_scheduler
        self.lr_interval = lr_interval
        self.mixing = None
        check_epochs(mix_epochs=mix_epochs)
        self.mix_epochs = mix_epochs
        if mixup or cutmix:
            self.mixing = Mixing(num_classes, mixup=mixup, cutmix=cutmix, probability=mix_probability)
            if not self.objective.accepts_soft_labels:
                raise InputError(
                    f"mixup={mixup} and cutmix={cutmix} make soft labels, which {self.objective.title} cannot take:"
                    " set both to 0, or choose another objective or loss"
                )
        self.objective.attach(self.network, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        self.memory_format = fastest_memory_format(self.network)
        if channels_last is not None:
            self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        if self.memory_format is not torch.preserve_format:
            self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self._compile = compile
        accuracies = {"accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False)}
        if num_classes >= 20:
            accuracies["accuracy_top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5, validate_args=False)
        metrics = MetricCollection(accuracies)  # type: ignore[arg-type]
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        self.groups = nn.ModuleDict()
        if class_groups is not None:
            self.groups.update(
                {stage: GroupAccuracy(class_groups, num_classes=num_classes) for stage in ("val", "test")}
            )
        self._means = RunningMeans()
        self._seen_stages: set[str] = set()
        self._trained_epoch = 0
        self._trained_run_epochs: int | None = None
        self._mixing_ratio = 1.0
        self._data_facts: dict[str, Any] = {}
        self._teacher_is_evaluated = False

    @property
    def repeats_steps(self) -> bool:
        """True if the loss of a batch can be computed twice, as `AWP` does."""
        return self.objective.repeats_steps

    def setup(self, stage: str) -> None:
        """Load initial weights, compile the network if asked for, and give the objective facts of the data."""
        if self.weights is not None and stage == "fit":
            start_from(self.network, self.weights)
        if self._compile:
            compile_network(self.network, hooked=getattr(self.objective, "student", None) is not None)
        ExactResume.attach(self.trainer)
        data = getattr(self.trainer, "datamodule", None)
        if counts := getattr(data, "class_counts", None):
            self.objective.class_counts = counts
        self._data_facts = data_facts(data)
        if self._data_facts:
            self.objective.meet_data(**self._data_facts)
        self._seen_stages.clear()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(N, num_classes)`` of images ``(N, C, H, W)``."""
        return self.network(to_memory_format(images, self.memory_format))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch, as a scalar."""
        images, labels = self._checked(batch, "train")
        ratio = 1.0
        if self.mixing is not None and self._is_mixed():
            key = (run_seed(), self.current_epoch, batch_idx, self.global_rank)
            images, labels, ratio = self.mixing(images, labels, key=key)
        self._mixing_ratio = ratio
        logits, losses, terms = self._training_losses(images, labels)
        loss = self.reduce(losses, mixing_ratio=ratio)
        if self.is_dry_run:
            return loss
        accuracy = (logits.detach().argmax(1) == _classes(labels)).float().mean()
        values = {"train/loss": loss.detach(), f"train/{self.train_accuracy}": accuracy}
        values |= {f"train/{name}": term.detach().mean() for name, term in terms.items()}
        self._means.update(values, len(images))
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if interval and (self.global_step + 1) % interval == 0:
            self.log_dict({f"{name}_step": value for name, value in values.items()}, prog_bar=True)
        return loss

    def on_train_epoch_start(self) -> None:
        """Reset the means."""
        self._means.reset()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        for name, mean in self._means.compute().items():
            # Members of a series, such as local_loss_3, are not shown in the progress bar.
            self.log(name, mean, prog_bar=not name[-1].isdigit(), sync_dist=True)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy on validation images."""
        if self._evaluates_teacher():
            self._evaluate_teacher(batch)
        self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy on test images."""
        self._evaluate(batch, "test", self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the accuracies of class groups; mark the teacher as evaluated, as its accuracy is constant."""
        self._log_groups("val")
        if not self.trainer.sanity_checking:
            self._teacher_is_evaluated = True

    def on_test_epoch_end(self) -> None:
        """Log the accuracies of class groups."""
        self._log_groups("test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return class probabilities ``(N, num_classes)`` of images, with or without labels."""
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        self._check_images(images)
        return self(images).float().softmax(1)

    def configure_optimizers(self) -> Any:
        """Return the optimizer over all trainable parameters, with the schedule if there is one."""
        optimizer = self.optimizer(parameter_groups(self, self.network, **self.grouping))
        scale_rates(optimizer)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        if isinstance(scheduler, RunSchedule) and scheduler.total is None:
            scheduler.fit_to(run_length(self.trainer, self.lr_interval))
        config: dict[str, Any] = {"scheduler": scheduler, "interval": self.lr_interval}
        if isinstance(scheduler, ReduceLROnPlateau):
            config["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": config}

    def teardown(self, stage: str) -> None:
        """Let the objective write its files."""
        self.objective.close()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights. An objective without weights skips those that another objective trained."""
        if not self.objective.state_dict():
            state_dict = {key: value for key, value in state_dict.items() if not key.startswith("objective.")}
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the epoch's means so far, and the facts that a student of this network needs."""
        checkpoint["means"] = self._means.state_dict(self.trainer.strategy.reduce)
        checkpoint["data_facts"] = self._data_facts
        checkpoint["run_epochs"] = self._run_epochs()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the epoch's means."""
        self._means.load_state_dict(checkpoint.get("means", {}))
        self._trained_epoch = checkpoint.get("epoch", 0)
        self._trained_run_epochs = checkpoint.get("run_epochs")

    def on_train_start(self) -> None:
        """Warn of settings that the run is too short for."""
        self.objective.run_epochs = self._run_epochs()
        self.objective.check_run()
        if self.mixing is not None:
            effect = "Mixup and CutMix never end"
            warn_if_unreached(self.mix_epochs, self._run_epochs(), name="mix_epochs", effect=effect)

    def _training_losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the same as `_losses`, for a training batch."""
        return self._losses(images, labels)

    def _losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return logits ``(N, num_classes)``, losses ``(N,)``, and the objective's terms to log, each ``(N,)``."""
        images = to_memory_format(images, self.memory_format)
        context = self._context(images, labels)
        logits = self(images)
        return logits, *self.objective.parts(logits, labels, context)

    def _context(self, images: Tensor, labels: Tensor) -> Any:
        """Return the objective's context of a batch."""
        # Outside of fit, Lightning's epoch is 0, whatever the checkpoint's epoch.
        fitting = self._trainer is not None and self.trainer.state.fn == "fit"
        self.objective.epoch = self.current_epoch if fitting else self._trained_epoch
        self.objective.run_epochs = self._run_epochs() if fitting else self._trained_run_epochs
        indices = getattr(getattr(self._trainer, "datamodule", None), "batch_indices", None)
        self.objective.batch_indices = indices if self.training else None
        with torch.no_grad():
            return self.objective.context(images, labels)

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str, metrics: MetricCollection) -> None:
        images, labels = self._checked(batch, stage)
        logits, losses, terms = self._losses(images, labels)
        metrics.update(logits, _classes(labels))
        if stage in self.groups:
            accuracies: Any = self.groups[stage]
            accuracies.update(logits, _classes(labels))
        means = {f"{stage}/{name}": values.mean() for name, values in {"loss": losses, **terms}.items()}
        self.log_dict(means, batch_size=len(images), sync_dist=True)
        self.log_dict(metrics, prog_bar=stage == "val", batch_size=len(images))  # type: ignore[arg-type]

    def _is_mixed(self) -> bool:
        """Return whether Mixup and CutMix are applied in this epoch."""
        return self.mix_epochs is None or self.current_epoch < in_epochs(self.mix_epochs, self._run_epochs())

    def _evaluates_teacher(self) -> bool:
        """Return whether this is a run's first validation."""
        first = self.current_epoch == 0 and not self._teacher_is_evaluated
        return first and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

    def _evaluate_teacher(self, batch: tuple[Tensor, Tensor]) -> None:
        """Log the accuracy of the objective's teacher, if it has one."""
        images, labels = self._checked(batch, "val")
        logits = self.objective.teacher_logits(to_memory_format(images, self.memory_format))
        if logits is not None:
            accuracy = (logits.argmax(1) == _classes(labels)).float().mean()
            self.log("val/teacher_accuracy", accuracy, batch_size=len(images), sync_dist=True)

    def _log_groups(self, stage: str) -> None:
        if stage in self.groups:
            accuracies: Any = self.groups[stage]
            self.log_dict({f"{stage}/accuracy_{name}": value for name, value in accuracies.compute().items()})
            accuracies.reset()

    def _checked(self, batch: Any, stage: str) -> tuple[Tensor, Tensor]:
        """Return the batch's images and labels; check the labels of a stage's first batch, with one host sync."""
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError(f"a batch must be a pair (images, labels) but is {type(batch).__name__}")
        images, labels = batch
        self._check_images(images)
        if stage not in self._seen_stages:
            self._seen_stages.add(stage)
            if labels.ndim > 1 and not self.objective.accepts_soft_labels:
                raise InputError(
                    f"labels must be class indices (N,) for {self.objective.title} but have shape"
                    f" {tuple(labels.shape)}: choose another objective or loss, or other labels"
                )
            if labels.ndim == 1 and len(labels):
                low, high = int(labels.min()), int(labels.max())
                if low < 0 or high >= self.num_classes:
                    raise InputError(
                        f"labels must lie in 0..{self.num_classes - 1} (num_classes={self.num_classes}) but a"
                        f" {stage} batch holds {low if low < 0 else high}: correct the labels or num_classes"
                    )
        return images, labels

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_chans:
            raise InputError(
                f"images must have shape (N, {self.in_chans}, H, W) (in_chans={self.in_chans}) but have"
                f" {tuple(images.shape)}: set in_chans to the data's channels, or convert the images"
            )

    def _run_epochs(self) -> int | None:
        """Return the epochs in the run; None if it is not limited."""
        return run_epochs(self.trainer)


def _classes(labels: Tensor) -> Tensor:
    """Return class indices ``(N,)`` of labels that may be probabilities ``(N, C)``."""
    return labels if labels.ndim == 1 else labels.argmax(1)
