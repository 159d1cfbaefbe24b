"""Local learning: a network trained module by module, without gradients between modules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from ..modules.auxiliary import Auxiliary, Cut, LocalHead
from ..modules.auxiliary._base import check_auxiliary
from ..modules.core.errors import InputError
from ..modules.core.feature_maps import channels_are_last
from ..modules.core.gradient_reduction import GradientReduction
from ..modules.lightning_private import is_accumulating
from ..modules.networks import to_memory_format
from ..modules.networks.normalized import register_statistics, statistics_of_data
from ..modules.partition.cuts import Partition, partition
from ..modules.strategies import keeps_weights_whole
from ._local_checks import check_pixels, check_stepping_apart, check_trainer_for_steps, last_units
from ._module_losses import ModuleBatch, call, compiled, kept_input, module_losses
from .classification import Classification


class LocalLearning(Classification):
    r"""Trains a network to classify images, with a separate loss for each of its modules.

    When the forward pass has computed a module, an auxiliary head turns the module's features into losses. The backward
    pass of the module runs at once and frees its activations. The next module gets the features without their gradient.
    So only one module's activations are in memory at a time.

    The last module is trained by the network's own logits. Every head is trained by the ``objective``, with the sample
    weights of a callback. Heads are in checkpoints but not part of ``network``: evaluation, prediction and export do
    not use them.

    A network that is a plain chain of its units is run unit by unit. Any other network is run as a whole, with hooks
    behind its modules.

    The gradients of all modules are used in one optimizer step, so accumulation, precision and schedules are
    Lightning's own. ``trainer.gradient_clip_val`` clips each module separately, as a common norm would couple the
    modules. Under DDP, the gradients of a module are averaged while the next module runs.

    Logged as by `Classification`, and once an epoch ``train/local_loss_0``, … for each head; ``train/local_loss`` is
    their mean.

    Args:
        network: A timm name, including ours (``cifar_resnet32``, ``convnet``, …), or a module that maps images to
            logits ``(N, num_classes)``.
        num_classes: Number of classes; on the command line it comes from the data.
        auxiliary: Makes the heads, e.g. `AugLocal`. May be None if there is only one module.
        num_modules: Number of modules, with as equal numbers of units as possible. 1 is ordinary training, bit for bit
            equal to `Classification`. None uses ``units_per_module``.
        units_per_module: Units per module, except the last. A unit is the stem of the network or one of its blocks.
        units: The units, given by the names of their last layers as in ``network.named_modules()``, in order. A name
            may be a regular expression for several, e.g. ``["blocks\.\d+"]``. None finds them.
        step_per_module: Step and free a module's gradients right after its backward pass. This saves the memory of the
            other modules' gradients and gives the same weights. Not available with accumulation, fp16, heads that read
            other modules, objectives with parameters, and optimizers that couple parameters, such as Lamb and
            Lookahead.
        mean: Channel means that the data's normalization subtracts, for heads that reconstruct the pixels. If neither
            ``mean`` nor ``std`` is given, both come from the trainer's datamodule; without one they are 0 and 1.
        std: Channel standard deviations that the normalization divides by.
        compile: Run each module with its head through `torch.compile`, as one function. Only for networks that are run
            unit by unit.
        options: All other arguments of `Classification`.

    Raises:
        InputError: If the network cannot be cut as asked, a head does not fit at its place, or the optimizer or an
            option of `Classification` does not support cuts.
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
        compile: bool = False,  # noqa: A002, as in Classification
        **options: Any,
    ) -> None:
        super().__init__(network, num_classes, compile=compile, **options)
        image_size = options.get("image_size")
        self.auxiliary = auxiliary
        self.step_per_module = step_per_module
        register_statistics(self, mean, std, in_chans=self.in_chans)
        self.heads = nn.ModuleList()
        # Names instead of layers, as a layer may be replaced later, e.g. by SyncBatchNorm.
        self._cuts: list[str] = []
        self._layers: list[list[str]] = []
        self._is_chain = False
        self._around: set[str] = set()
        self._modules_of: dict[str, int] = {}
        self._reached: set[int] = set()
        self._compile_modules = False
        self._reduction = GradientReduction()
        if num_modules == 1:
            return
        if auxiliary is None:
            raise InputError("auxiliary must be given, e.g. AugLocal, as the modules need heads that train them")
        check_auxiliary("auxiliary", auxiliary)
        if image_size is None or image_size < 1:
            raise InputError(
                f"image_size must be given, as the heads are made for the shapes of the features, but is {image_size}"
            )
        if getattr(self.objective, "student", None) is not None:
            raise InputError(
                f"{self.objective.title} reads features of the whole network, which local heads do not have: choose an"
                " objective or loss of logits"
            )
        if step_per_module and auxiliary.coupled:
            raise InputError(
                f"step_per_module does not go with {type(auxiliary).__name__}, whose heads read other modules' weights"
            )
        if step_per_module:
            check_stepping_apart(self.optimizer, self.objective)
        parts = partition(self.network, torch.zeros(2, self.in_chans, image_size, image_size), names=units)
        ends = last_units(parts, num_modules, units_per_module, auxiliary.kept_units)
        self._build(parts, auxiliary, ends, image_size)
        self._compile_modules, self._compile = self._compile and self._is_chain, False
        if compile and not self._compile_modules:
            rank_zero_warn("compile is off, as the network computes something between its units")

    def _build(self, parts: Partition, auxiliary: Auxiliary, last_units: list[int], image_size: int) -> None:
        """Make the heads, and assign the parameters to the modules."""
        hint = str(getattr(self.network, "output_fmt", ""))
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
            self._cuts.append(unit.name)
            self._modules_of[f"heads.{index}"] = index
            inputs = unit.outputs
        self._is_chain = parts.is_chain
        if parts.is_chain:
            self._layers = parts.module_layers(last_units)
            for name in (name for names in self._layers for name in names):
                words = name.split(".")
                self._around |= {".".join(words[:length]) for length in range(len(words))}
        self._modules_of |= {f"network.{name}": index for name, index in parts.parameter_modules(last_units).items()}

    @property
    def num_modules(self) -> int:
        """Number of gradient-isolated modules."""
        return len(self.heads) + 1

    @property
    def _groups(self) -> list[list[str]]:
        """Parameter names per module, including its head. Parameters without a module belong to the last one."""
        groups: list[list[str]] = [[] for _ in range(self.num_modules)]
        names = [name for name, _ in self.named_parameters()]
        for name in sorted(names, key=lambda name: not name.startswith("heads.")):
            owner = name  # or its layer, if the parameter was renamed since
            while owner and owner not in self._modules_of:
                owner = owner.rpartition(".")[0]
            groups[self._modules_of.get(owner, len(self.heads))].append(name)
        return groups

    def module_parameters(self, index: int) -> list[nn.Parameter]:
        """Return the trained parameters of one module and its head."""
        named = dict(self.named_parameters())
        return [named[name] for name in self._groups[index] if named[name].requires_grad]

    def setup(self, stage: str) -> None:
        """Check the trainer, and exclude locally trained parameters from DDP."""
        super().setup(stage)
        statistics_of_data(self, getattr(self.trainer, "datamodule", None))
        if stage != "fit" or not self.heads:
            return
        if not keeps_weights_whole(self.trainer.strategy):
            raise InputError(
                f"strategy {type(self.trainer.strategy).__name__} does not go with LocalLearning: use one device or ddp"
            )
        if self.step_per_module:
            check_trainer_for_steps(self.trainer, self.network)
        # DDP would wait for gradients that are computed before its own backward pass begins.
        self._ddp_params_and_buffers_to_ignore = [name for group in self._groups[:-1] for name in group]

    def on_fit_start(self) -> None:
        """Give all processes the same initial weights; DDP does this for the last module."""
        self._parameters_of = [self.module_parameters(index) for index in range(self.num_modules)]
        self._reached.clear()
        sizes = [sum(p.numel() for p in part.parameters() if p.requires_grad) for part in (self.network, self.heads)]
        count = f"{len(self.heads)} head{'s' * (len(self.heads) != 1)}"
        rank_zero_info(f"Trained parameters: network {sizes[0]:,}, {count} {sizes[1]:,}")
        if self.heads and self.trainer.world_size > 1:
            named = dict(self.named_parameters())
            for name in self._ddp_params_and_buffers_to_ignore:
                dist.broadcast(named[name].data, src=0)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of the last module, as a scalar, after the backward passes of the other modules."""
        if self.heads and not self.is_dry_run and batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.trainer.optimizers[0].zero_grad()
        return super().training_step(batch, batch_idx)

    def _training_losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        if not self.heads:
            return super()._training_losses(images, labels)
        images = to_memory_format(images, self.memory_format)
        context = self._context(images, labels)
        known = ModuleBatch(self.objective, labels, context, images, self.mean, self.std)
        local: list[Tensor] = []
        if self._is_run_by_units():
            inputs = images
            for index, head in enumerate(self.heads):
                # The module's features get no name here: a name would keep them in memory while the next module runs.
                forward = self._function(module_losses, index)
                inputs = self._learnt(index, *forward(self._named_layers(index), head, inputs, known), local=local)
            logits = self._function(call, len(self.heads))(self._named_layers(-1), inputs)
        else:
            logits = self._run_with_hooks(images, known, local)
        losses, terms = self.objective.parts(logits, labels, context)
        if self.is_dry_run:
            # The callback computes all gradients at once. Each module still gets only the gradient of its own loss.
            return logits, losses + torch.stack(local).sum(0), terms
        self._means.update({f"train/local_loss_{index}": mean for index, mean in enumerate(local)}, len(images))
        return logits, losses, {**terms, "local_loss": torch.stack(local)}

    def _checked(self, batch: Any, stage: str) -> tuple[Tensor, Tensor]:
        first = stage not in self._seen_stages
        images, labels = super()._checked(batch, stage)
        if first and stage == "train" and any(getattr(part, "reads_pixels", False) for part in self.heads.modules()):
            check_pixels(images, self.mean, self.std)
        return images, labels

    def _named_layers(self, index: int) -> list[nn.Module]:
        """Return the current layers of one module."""
        return [self.network.get_submodule(name) for name in self._layers[index]]

    def _function(self, function: Callable[..., Any], index: int) -> Callable[..., Any]:
        """Return the function for one module, compiled if asked for."""
        return compiled(function, index) if self._compile_modules else function

    def _is_run_by_units(self) -> bool:
        """Return whether the network is a chain of its units, without hooks on the layers that contain the units."""
        around = (self, *(self.network.get_submodule(name) for name in self._around))
        return self._is_chain and not any(m._forward_hooks or m._forward_pre_hooks for m in around)

    def _run_with_hooks(self, images: Tensor, known: ModuleBatch, local: list[Tensor]) -> Tensor:
        """Run the network as a whole, with hooks that train each module right after its forward pass."""
        inputs = images

        def hook(index: int, head: LocalHead, layer: nn.Module, args: Any, features: Tensor) -> Tensor:
            nonlocal inputs
            if index != len(local):
                raise InputError(
                    f"the layer {self._cuts[index]} was run twice or out of turn: switch off the network's gradient"
                    " checkpointing, or name other units"
                )
            inputs = self._learnt(index, features, head(features, known.local(inputs)), local)
            return kept_input(self.heads[index + 1], inputs) if index + 1 < len(self.heads) else inputs  # type: ignore

        with contextlib.ExitStack() as stack:
            for index, (name, head) in enumerate(zip(self._cuts, self.heads, strict=True)):
                layer = self.network.get_submodule(name)
                stack.callback(layer.register_forward_hook(partial(hook, index, head)).remove)  # pyright: ignore
            logits = self(kept_input(self.heads[0], images))  # type: ignore[arg-type]
        if len(local) != len(self.heads):
            raise InputError(
                f"only {len(local)} of {len(self.heads)} modules were trained in this step, as the network did not run"
                f" the layer {self._cuts[len(local)]}: build LocalLearning after the network is changed"
            )
        return logits

    def _learnt(self, index: int, features: Tensor, losses: Tensor, local: list[Tensor]) -> Tensor:
        """Train one module by its losses ``(N,)``, add them to ``local``, and return the next module's input."""
        if not features.requires_grad and not self.is_dry_run:
            self._check_reached(index)
        if self.is_dry_run:
            local.append(losses)
        else:
            loss = self.reduce(losses, mixing_ratio=self._mixing_ratio)
            local.append(loss.detach())
            if loss.requires_grad:
                self._learn(index, loss)
        return features.detach()

    def _learn(self, index: int, loss: Tensor) -> None:
        """Run the backward pass of one module. Callbacks are not called: their hook runs once a step."""
        trainer = self.trainer
        if self.step_per_module and trainer.accumulate_grad_batches > 1:
            raise InputError(
                "step_per_module does not go with accumulation, which a callback switched on: leave one out"
            )
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        loss = loss / trainer.accumulate_grad_batches
        with torch.autocast(loss.device.type, enabled=False):
            (loss if scaler is None else scaler.scale(loss)).backward()
        if index not in self._reached:
            self._check_reached(index)
            self._reached.add(index)
        parameters = self._parameters_of[index]
        if trainer.world_size > 1 and not is_accumulating(trainer):
            self._reduction.start(parameters)
        if self.step_per_module:
            self._reduction.finish()
            if trainer.gradient_clip_val:
                self._clip(parameters, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
            optimizer = trainer.optimizers[0]
            optimizer.step()
            optimizer.zero_grad()

    _parameters_of: list[list[nn.Parameter]]

    def _check_reached(self, index: int) -> None:
        """Refuse a module with trained weights that get no gradient in its backward pass."""
        named = dict(self.network.named_parameters())
        names = (name.removeprefix("network.") for name in self._groups[index] if name.startswith("network."))
        missing = [name for name in names if named[name].requires_grad and named[name].grad is None]
        if missing:
            raise InputError(
                f"no gradient of the module that ends with {self._cuts[index]} reaches {missing[0]}: switch the"
                " network's gradient checkpointing off, or use use_reentrant=False, or freeze these weights"
            )

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Run the backward pass of the last module; afterwards all modules have their gradients."""
        super().backward(loss, *args, **kwargs)
        self._reduction.finish()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Do nothing if there are heads: gradients were set to zero before the step."""
        if not self.heads:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip each module separately."""
        if not self.heads:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            for parameters in self._parameters_of:
                self._clip(parameters, gradient_clip_val, gradient_clip_algorithm)

    @staticmethod
    def _clip(parameters: list[nn.Parameter], value: float, algorithm: Any) -> None:
        parameters = [parameter for parameter in parameters if parameter.grad is not None]
        if not parameters:
            return  # the module has stepped already
        if algorithm is not None and str(getattr(algorithm, "value", algorithm)) == "value":
            nn.utils.clip_grad_value_(parameters, value)
        else:
            nn.utils.clip_grad_norm_(parameters, value)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Call ``before_step`` of the heads."""
        for head in self.heads:
            head.before_step(self.network)  # type: ignore[operator]

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step, then call ``after_step`` of the heads."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for head in self.heads:
            head.after_step(self.network)  # type: ignore[operator]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights. A network without heads skips the weights of heads."""
        if not self.heads:
            state_dict = {key: value for key, value in state_dict.items() if not key.startswith("heads.")}
        return super().load_state_dict(state_dict, strict=strict, assign=assign)
