"""Local learning: a network trained module by module, with no gradient from one to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ..modules.auxiliary import Auxiliary, Cut, LocalBatch, LocalHead
from ..modules.auxiliary._base import check_auxiliary
from ..modules.auxiliary._maps import channels_are_last
from ..modules.checks import at_least
from ..modules.errors import InputError
from ..modules.gradient_reduction import GradientReduction
from ..modules.networks import arranged
from ..modules.normalised import register_statistics
from ..modules.partition import Partition, partition
from ..modules.strategies import keeps_weights_whole
from .classification import Classification


class LocalLearning(Classification):
    r"""Trains a network to classify images, each of its modules by a loss of its own.

    In the forward pass, as soon as a module is done, its head turns its features into losses, the backward pass of the
    module runs and frees what it needed, and the next module gets the features without their gradient. So only one
    module's activations are in memory at a time. The last module is trained by the network's own logits. The heads are
    in checkpoints but not part of ``network``: evaluation, prediction and export know nothing of them. Every head is
    trained by the ``objective``, with the sample weights of a callback.

    The gradients of all modules meet in one step of one optimizer, so accumulation, precision and schedules
    are Lightning's own. ``trainer.gradient_clip_val`` clips each module by itself, as a common norm would couple them.
    Under DDP the gradients of each module are averaged while the next is at work.

    Logged as by `Classification`, and ``train/local_loss``, the mean of the heads' losses.

    Args:
        network: A timm name, ours (``cifar_resnet32``, ``convnet``, …) among them, or a module that maps images to
            logits ``(N, num_classes)``.
        num_classes: Number of classes; on the command line it comes from the data.
        auxiliary: Makes the heads, e.g. `AugLocal`. May be None where there is one module.
        num_modules: Number of modules, of as equally many units as can be; 1 is ordinary training, bit for bit that of
            `Classification`. None goes by ``units_per_module``.
        units_per_module: Units of each module but the last. A unit is the stem of the network or one of its blocks.
        units: The units by the names of the layers that end them, as in ``network.named_modules()`` and in order; a
            name may be a regular expression for several, e.g. ``["blocks\.\d+"]``. None finds them.
        step_per_module: Step and forget the gradients of each module as soon as it is done, which saves the memory of
            the others' and changes nothing else. Not with accumulation, fp16 or heads that read other modules.
        mean: What the data subtracts from each channel of its pixels, for heads that reconstruct the pixels; on the
            command line it comes from the data. None is 0.
        std: What it then divides each channel by; on the command line it comes from the data. None is 1.
        options: All other arguments of `Classification`.

    Raises:
        InputError: If the network cannot be cut, or not like this, a head cannot stand where it is to, or an option of
            `Classification` does not go with cuts.
    """

    _objects = (*Classification._objects, "auxiliary")
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: str | nn.Module,
        num_classes: int,
        *,
        auxiliary: Auxiliary | None = None,
        num_modules: int | None = None,
        units_per_module: int = 1,
        units: Sequence[str] | None = None,
        step_per_module: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(network, num_classes, **options)
        image_size = options.get("image_size")
        self.auxiliary = auxiliary
        self.step_per_module = step_per_module
        register_statistics(self, mean, std, in_chans=self.in_chans)
        self.heads = nn.ModuleList()
        self._cuts: list[tuple[nn.Module, LocalHead]] = []
        self._groups: list[list[str]] = []
        self._reduction = GradientReduction()
        self._local_losses: list[Tensor] = []
        if num_modules == 1:
            return
        if auxiliary is None:
            raise InputError("auxiliary must be given, e.g. AugLocal, as the modules need heads that train them")
        check_auxiliary("auxiliary", auxiliary)
        if image_size is None or image_size < 1:
            raise InputError(
                f"image_size must be given, as the heads are made for the shapes of the features, but is {image_size}"
            )
        if self._compile:
            rank_zero_warn("compile is off, as a network that is cut cannot be compiled")
            self._compile = False
        if getattr(self.objective, "student", None) is not None:
            raise InputError(
                f"{self.objective.title} reads features of the whole network, which local heads do not have: choose an"
                " objective or loss of logits"
            )
        if step_per_module and auxiliary.coupled:
            raise InputError(
                f"step_per_module does not go with {type(auxiliary).__name__}, whose heads read other modules' weights"
            )
        parts = partition(self.network, torch.zeros(2, self.in_chans, image_size, image_size), names=units)
        last_units = _last_units(len(parts.units), num_modules, units_per_module, auxiliary.kept_units)
        self._build(parts, auxiliary, last_units, image_size)

    def _build(self, parts: Partition, auxiliary: Auxiliary, last_units: list[int], image_size: int) -> None:
        """Make the heads, and say which parameters belong to which module."""
        hint = str(getattr(self.network, "output_fmt", ""))
        modules = dict(self.network.named_modules())
        inputs: tuple[int, ...] = (2, self.in_chans, image_size, image_size)
        for index, last in enumerate(last_units):
            unit = parts.units[last]
            head = auxiliary.build(
                Cut(
                    index=index,
                    count=len(last_units),
                    unit=last,
                    partition=parts,
                    inputs=inputs,
                    features=unit.outputs,
                    num_classes=self.num_classes,
                    in_chans=self.in_chans,
                    image_size=image_size,
                    channels_last=channels_are_last(unit.outputs, hint),
                )
            )
            if self.memory_format is torch.channels_last:
                head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.heads.append(head)
            self._cuts.append((modules[unit.name], head))
            inputs = unit.outputs
        stations = [parts.units[last].station for last in last_units]
        self._groups = [
            [f"heads.{index}.{name}" for name, _ in head.named_parameters()] for index, head in enumerate(self.heads)
        ] + [[]]
        for name, _ in self.network.named_parameters():
            # What no gradient reaches belongs to nobody, and DDP says so.
            station = parts.parameter_stations.get(name, parts.tail.station)
            self._groups[sum(end < station for end in stations)].append(f"network.{name}")
        self._groups[-1] += [f"objective.{name}" for name, _ in self.objective.named_parameters()]

    @property
    def num_modules(self) -> int:
        """Number of gradient-isolated modules."""
        return len(self.heads) + 1

    def module_parameters(self, index: int) -> list[nn.Parameter]:
        """The trained parameters of one module and its head."""
        named = dict(self.named_parameters())
        return [named[name] for name in self._groups[index] if named[name].requires_grad]

    def setup(self, stage: str) -> None:
        """Check that the trainer can do this, and tell DDP which gradients are none of its business."""
        super().setup(stage)
        if stage != "fit" or not self.heads:
            return
        strategy, precision = self.trainer.strategy, str(self.trainer.precision)
        if not keeps_weights_whole(strategy):
            raise InputError(
                f"strategy {type(strategy).__name__} does not go with LocalLearning: use one device or ddp"
            )
        if self.step_per_module and (self.trainer.accumulate_grad_batches > 1 or precision == "16-mixed"):
            raise InputError(
                "step_per_module does not go with accumulate_grad_batches or precision 16-mixed, which look at all"
                " gradients at once: leave one of them out"
            )
        late = [type(callback).__name__ for callback in self.trainer.callbacks if _looks_at_gradients(callback)]  # type: ignore[attr-defined]
        if self.step_per_module and late:
            raise InputError(
                f"step_per_module does not go with {late[0]}, which looks at all gradients before the step: leave one"
                " of them out"
            )
        # DDP would wait for gradients that are there before its own backward pass begins.
        self._ddp_params_and_buffers_to_ignore = [name for group in self._groups[:-1] for name in group]

    def on_fit_start(self) -> None:
        """Let all processes begin with the same weights; DDP sees to those of the last module."""
        self._parameters_of = [self.module_parameters(index) for index in range(len(self._groups))]
        if self.heads and self.trainer.world_size > 1:
            named = dict(self.named_parameters())
            for name in self._ddp_params_and_buffers_to_ignore:
                dist.broadcast(named[name].data, src=0)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of the last module, as a scalar; the others have had their backward pass."""
        if self.heads and not self.rehearsing and batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.trainer.optimizers[0].zero_grad()
        return super().training_step(batch, batch_idx)

    def _training_losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        if not self.heads:
            return super()._training_losses(images, labels)
        images = arranged(images, self.memory_format)
        context = self._context(images, labels)
        classify = partial(self.objective, labels=labels, context=context)
        with self._isolated(classify, images, labels):
            logits = self(images)
        losses, terms = self.objective.parts(logits, labels, context)
        local, self._local_losses = torch.stack(self._local_losses), []
        if self.rehearsing:
            # The callback takes the gradients by itself, all at once: each module's are still those of its own loss.
            return logits, losses + local.sum(0), terms
        return logits, losses, {**terms, "local_loss": local}

    @contextlib.contextmanager
    def _isolated(self, classify: Any, images: Tensor, labels: Tensor) -> Iterator[None]:
        """Train each module but the last as soon as it is done."""
        self._local_losses, inputs = [], images

        def learn(index: int, head: LocalHead, layer: nn.Module, args: Any, features: Tensor) -> Tensor:
            nonlocal inputs
            batch = LocalBatch(classify, labels, images, lambda: images * self.std + self.mean, inputs)
            losses = head(features, batch)
            if self.rehearsing:
                self._local_losses.append(losses)
            else:
                loss = self.reduce(losses, mixing_ratio=self._mixing_ratio)
                self._local_losses.append(loss.detach())
                if loss.requires_grad:
                    self._learn(index, loss)
            inputs = features.detach()
            return inputs

        handles = [
            layer.register_forward_hook(partial(learn, index, head)) for index, (layer, head) in enumerate(self._cuts)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _learn(self, index: int, loss: Tensor) -> None:
        """The backward pass of one module. Callbacks see nothing of it, as theirs is one a step."""
        trainer = self.trainer
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        loss = loss / trainer.accumulate_grad_batches
        with torch.autocast(loss.device.type, enabled=False):
            (loss if scaler is None else scaler.scale(loss)).backward()
        parameters = self._parameters_of[index]
        if trainer.world_size > 1 and not trainer.fit_loop._should_accumulate():
            self._reduction.start(parameters)
        if self.step_per_module:
            self._reduction.finish()
            if trainer.gradient_clip_val:
                self._clip(parameters, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
            optimizer = trainer.optimizers[0]
            optimizer.step()
            optimizer.zero_grad()

    _parameters_of: list[list[nn.Parameter]]

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The backward pass of the last module; afterwards the gradients of all are there."""
        super().backward(loss, *args, **kwargs)
        self._reduction.finish()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Do nothing where there are gradients already: they were set to zero before the step."""
        if not self.heads:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip each module by itself."""
        if not self.heads:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            for parameters in self._parameters_of:
                self._clip(parameters, gradient_clip_val, gradient_clip_algorithm)

    @staticmethod
    def _clip(parameters: list[nn.Parameter], value: float, algorithm: Any) -> None:
        parameters = [parameter for parameter in parameters if parameter.grad is not None]
        if not parameters:
            return  # the module has made its step
        if algorithm is not None and str(getattr(algorithm, "value", algorithm)) == "value":
            nn.utils.clip_grad_value_(parameters, value)
        else:
            nn.utils.clip_grad_norm_(parameters, value)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Tell the heads."""
        for head in self.heads:
            head.before_step(self.network)  # type: ignore[operator]

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step, and tell the heads."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for head in self.heads:
            head.after_step(self.network)  # type: ignore[operator]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take weights; those of heads are left out by a network that has none."""
        if not self.heads:
            state_dict = {key: value for key, value in state_dict.items() if not key.startswith("heads.")}
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


def _looks_at_gradients(callback: Callback) -> bool:
    """Whether a callback has something to do between a backward pass and the step."""
    hooks = ("on_after_backward", "on_before_optimizer_step")
    overridden = any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)
    return overridden or isinstance(callback, GradientAccumulationScheduler)


def _last_units(units: int, num_modules: int | None, units_per_module: int, kept: int) -> list[int]:
    """The last unit of each module but the last module.

    Raises:
        InputError: If there are too few units.
    """
    if num_modules is not None:
        if not 1 <= num_modules <= units:
            raise InputError(f"num_modules must lie in 1..{units}, the units of the network, but is {num_modules}")
        return [-(-units * module // num_modules) - 1 for module in range(1, num_modules)]
    at_least(1, units_per_module=units_per_module)
    last = list(range(units_per_module - 1, units - kept, units_per_module))
    if not last:
        raise InputError(
            f"the network has {units} units, of which the last {kept} stay together, so no cut is left: lower the depth"
            f" of the heads or units_per_module ({units_per_module}), or give num_modules, or name more units"
        )
    return last
