"""AWP: adversarial weight perturbation."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchmetrics import Metric

from ..modules.core.checks import at_least, not_negative, one_of
from ..modules.core.errors import InputError
from ..modules.strategies import keeps_weights_whole
from ._once import refuse_second


class AWP(Callback):
    """Adversarial weight perturbation (https://arxiv.org/abs/2004.05884), for any LightningModule.

    Before each step, the gradient g of the batch's loss is computed once more. Each weight tensor w is then moved by
    ``gamma`` · ‖w‖ · g / ‖g‖. The training step uses the moved weights. They are restored bit for bit before the
    optimizer's step. One-dimensional parameters (biases and normalization weights) are not moved.

    The cost is one more forward and backward pass a step. `AdversarialClassification` attacks its images once for both
    passes. The first pass is not logged and leaves buffers (such as batch statistics) and torchmetrics unchanged.

    By default the optimizer's step, weight decay included, starts from the restored weights. With ``step_from="moved"``
    it starts from the moved weights, and the move v is subtracted afterwards, as in the authors' code. With SGD the two
    differ by ``-lr · weight_decay · v`` a step. With several processes the gradients are averaged, so all make the same
    move.

    Args:
        gamma: Length of the move, relative to the norm of the weights. The authors use 0.005 with TRADES (this default)
            and 0.01 with standard adversarial training.
        first_epoch: First epoch with moved weights, counted from 0 (our option; the authors' code begins with the first
            epoch or after a warm-up).
        step_from: Start of the optimizer's step: the restored "weights", or the "moved" ones. With "moved",
            ``on_before_optimizer_step`` of other callbacks sees moved weights; after the step the weights are restored.

    Raises:
        InputError: If an argument is out of range. At the start of a run: if the module optimizes manually or has
            ``repeats_steps = False`` (it cannot compute a step twice), or the strategy splits weights among processes.
    """

    def __init__(
        self,
        gamma: float = 0.005,
        *,
        first_epoch: int = 0,
        step_from: Literal["weights", "moved"] = "weights",
    ) -> None:
        not_negative(gamma=gamma)
        at_least(0, first_epoch=first_epoch)
        one_of(("weights", "moved"), step_from=step_from)
        self.gamma = gamma
        self.first_epoch = first_epoch
        self.step_from = step_from
        self._kept: list[tuple[nn.Parameter, Tensor]] = []
        self._moves: list[Tensor] = []
        self._hooks: list[RemovableHandle] = []
        self._step_follows = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse unsuitable runs, and move behind the callbacks that set sample weights."""
        if stage != "fit":
            return
        refuse_second(trainer, self)
        if not pl_module.automatic_optimization:
            raise InputError(
                f"AWP computes the loss of a step, but {type(pl_module).__name__} optimizes manually: leave it out"
            )
        if not getattr(pl_module, "repeats_steps", True):
            raise InputError(
                f"AWP computes the loss of a step twice, which {type(pl_module).__name__} cannot, as each step takes"
                " its state further: leave it out"
            )
        if not keeps_weights_whole(trainer.strategy):
            raise InputError(
                f"AWP needs whole weights in each process, but {type(trainer.strategy).__name__} splits them:"
                " --trainer.strategy ddp"
            )
        others: list[Callback] = [other for other in trainer.callbacks if other is not self]  # type: ignore
        place = next((i for i, other in enumerate(others) if isinstance(other, Checkpoint)), len(others))
        # Make a new list, as the trainer is iterating over the old one.
        trainer.callbacks = [*others[:place], self, *others[place:]]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook into the optimizers if the step starts from the moved weights."""
        if self.step_from == "moved":
            self._hooks = [optimizer.register_step_post_hook(self._undo) for optimizer in trainer.optimizers]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Move the weights."""
        self._restore()  # of a batch that was started but skipped
        self._step_follows = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        if not self.gamma or trainer.current_epoch < self.first_epoch:
            return
        weights = [weight for weight in pl_module.parameters() if weight.requires_grad and weight.ndim > 1]
        gradients = _gradients(trainer, pl_module, weights, batch, batch_idx)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is None:
                    continue
                self._kept.append((weight, weight.detach().clone()))
                length = gradient.norm()
                # In half precision the gradient may be infinite; then there is no direction to move in.
                usable = torch.isfinite(length) & (length > 0)
                factor = torch.where(usable, self.gamma * weight.norm() / length, 0.0)
                move = torch.where(usable, gradient, 0.0) * factor
                weight.add_(move)
                if self.step_from == "moved":
                    self._moves.append(move)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the weights, unless the next optimizer step starts from the moved ones."""
        if self.step_from == "weights" or not self._step_follows:
            self._restore()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Restore the weights, also after a step without a backward pass."""
        self._restore()

    def on_train_epoch_end(self, *args: Any) -> None:
        """Restore the weights, also after a batch that was started but skipped."""
        self._restore()

    def on_validation_start(self, *args: Any) -> None:
        """Restore the weights before validation."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the weights before a checkpoint is written."""
        self._restore()
        self._remove_hooks()

    def on_train_end(self, *args: Any) -> None:
        """Remove the optimizer hooks."""
        self._remove_hooks()

    def _restore(self) -> None:
        with torch.no_grad():
            for weight, values in self._kept:
                weight.copy_(values)
        self._kept.clear()
        self._moves.clear()

    def _undo(self, *args: Any) -> None:
        """Subtract the move after a step that started from the moved weights."""
        with torch.no_grad():
            for (weight, _), move in zip(self._kept, self._moves, strict=True):
                weight.sub_(move)
        self._kept.clear()
        self._moves.clear()

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


def _gradients(
    trainer: Trainer, pl_module: LightningModule, weights: list[nn.Parameter], batch: Any, batch_idx: int
) -> list[Tensor | None]:
    """Compute the gradients of the batch's loss; only the global random generators change."""
    module: Any = pl_module
    with _dry_run(module):
        with trainer.precision_plugin.train_step_context():
            output = module.training_step(batch, batch_idx)
        loss = output["loss"] if isinstance(output, dict) else output
        if loss is None:
            gradients: tuple[Tensor | None, ...] = (None,) * len(weights)
        else:
            # Half precision needs a scaled loss; only the direction of the gradient matters here.
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            loss = loss.mean() if scaler is None else scaler.scale(loss.mean())
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    if trainer.world_size == 1:
        return list(gradients)
    # All processes must take part in this sum, also a process without a loss.
    parts = [
        weight.new_zeros(weight.shape) if part is None else part
        for weight, part in zip(weights, gradients, strict=True)
    ]
    joint = torch.cat([part.flatten() for part in parts])
    torch.distributed.all_reduce(joint)
    return [
        part.view_as(weight) for part, weight in zip(joint.split([w.numel() for w in weights]), weights, strict=True)
    ]


@contextlib.contextmanager
def _dry_run(module: Any) -> Iterator[None]:
    """Turn logging off, and restore buffers and metrics at the end."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    metrics = [
        (metric, copy.deepcopy(metric.metric_state), metric._update_count)
        for metric in module.modules()
        if isinstance(metric, Metric)
    ]
    hidden = {name: vars(module)[name] for name in ("is_dry_run", "log", "log_dict") if name in vars(module)}
    module.is_dry_run = True
    module.log = module.log_dict = _ignore
    try:
        yield
    finally:
        del module.is_dry_run, module.log, module.log_dict
        vars(module).update(hidden)
        with torch.no_grad():
            for buffer, values in buffers:
                buffer.copy_(values)
        for metric, state, count in metrics:
            for name, value in state.items():
                setattr(metric, name, value)
            metric._update_count, metric._computed = count, None


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Stand in for `log`."""
