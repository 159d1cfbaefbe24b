"""Dataset distillation: the trained parameters are images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ..modules.augmentation.siamese import SiameseAugmentation
from ..modules.core.checks import at_least, one_of
from ..modules.core.descriptions import describe, rebuild
from ..modules.core.errors import InputError
from ..modules.core.running_means import RunningMeans
from ..modules.core.sampling import Stream, derived_seed, isolated_rng, run_seed
from ..modules.exact_resume import ExactResume
from ..modules.lightning_private import has_written_hyperparameters, training_data_source
from ..modules.matching import ClassBatch, DataDAM, Matching
from ..modules.networks import create_network, fastest_memory_format, to_memory_format
from ..modules.synthetic.training import SmallSetTraining
from ._class_batches import ClassBatches, RealImages
from ._set_evaluation import BASELINES, Baseline, SetEvaluation
from ._set_start import STARTS, SetStart


class DatasetDistillation(SetStart, SetEvaluation, LightningModule):
    """Makes a small synthetic training set from a large real one.

    The images are the only parameters. Each step draws real images of every class and a network with new random
    weights. The loss ``matching`` measures in this network how synthetic and real images differ, and its gradient moves
    the synthetic images. An epoch is ``steps_per_epoch`` steps, or ``networks_per_epoch`` networks.

    The data is read once, from any datamodule or loader, and kept in memory as it comes (uint8 with the datamodules
    here). Batches are then drawn by (seed, step, class).

    Validation trains ``networks`` new networks on the synthetic images and measures them on the validation images. This
    is slow, so set ``trainer.check_val_every_n_epoch``. Test does the same with ``test_networks`` networks, on the
    synthetic images and on every set of ``baselines``.

    Logged:

    - ``train/loss`` and its terms, summed over classes.
    - ``val/accuracy`` and ``val/loss``.
    - ``test/accuracy``, ``test/accuracy_std`` (of the population) and ``test/accuracy_0``, …, one per network.
    - The same three for the baselines, as ``test/accuracy_random``, ``test/accuracy_kcenter`` and
      ``test/accuracy_png``.
    - ``val/training_seconds`` and ``test/training_seconds``, the time to train the networks.

    Args:
        num_classes: Number of classes; on the command line it comes from the data.
        network: A timm name, including ours (``convnet``, ``cifar_resnet8``, …), of the networks that compare synthetic
            and real images. They are not saved in checkpoints, except between two steps of one network.
        in_chans: Channels of an image; on the command line it comes from the data.
        image_size: Height and width of an image in pixels; on the command line it comes from the data.
        network_args: Further arguments of that network, e.g. ``{norm: batch}``.
        matching: The loss. Default: `DataDAM` with the paper's settings.
        images_per_class: Synthetic images per class, at most the number of real ones.
        init: Initial images: random real images ("real"), normal noise ("noise"), real images chosen by greedy k-center
            on their pixels ("kcenter"), or a file of ``recipes export``. If the file has too few images of a class,
            random real images are added. Images that were set in Python (``model.images.data.copy_(…)``) stay.
        batch_real: Real images per class in a step; a class with fewer images gives all of them. Published: 256, and 64
            in DataDAM's code.
        augmentation: Augmentation of real and synthetic images, with the same transform for all images of a class. The
            networks for evaluation are trained with one transform per image. None is off.
        steps_per_epoch: Optimizer steps per epoch. None uses ``networks_per_epoch``.
        networks_per_epoch: Matching networks per epoch, each with all its steps (``outer_loop`` in `GradientMatching`).
            The number of networks in a run is then the same for any ``images_per_class``. Used if ``steps_per_epoch``
            is None; 100 if both are.
        optimizer: Called with the images. Default: SGD, rate 1, momentum 0.5, as published for up to 50 images per
            class; for more the rate is 10.
        training: Training of the networks that evaluate the set. Default: as published, 1000 epochs.
        networks: Number of networks in validation.
        test_networks: Number of networks in test.
        baselines: Sets that a test compares with the distilled set, each at the cost of ``test_networks`` networks:
            random real images ("random"), a k-center choice ("kcenter"), the images as 8-bit pixels ("png"), all
            training images ("whole"), which takes long. ``[]`` is no baselines.
        evaluation_network: A timm name; None is ``network``. Another network shows whether the set is useful for
            architectures that were not used to make it.
        evaluation_init: Initial weights of an ``evaluation_network`` other than ``network``: PyTorch's defaults
            ("torch"), as in the authors' code, or the network's own ("network"), e.g. He's for timm's ResNets.
        evaluation_network_args: Further arguments of that network. None uses ``network_args`` if it is the same
            network, else none.
        grid_every: Epochs between pictures of the first ten images per class, as ``images/*.png`` in the run's folder
            and in loggers that accept images; 0 is off.

    Raises:
        InputError: If an argument is out of range or does not fit the network. At the start of a run: if the data does
            not fit or a class has too few images. With several processes also if there are fewer classes than
            processes, or the network's batch normalization mixes the classes.
    """

    monitor = "val/accuracy"
    """Logged value of the best checkpoint; higher is better."""
    monitor_mode = "max"

    chooses_samples = True
    """Tells callbacks that select training samples that this recipe draws them itself."""
    repeats_steps = False
    """Tells callbacks that a step cannot be computed twice, as each step changes the network."""

    def __init__(
        self,
        num_classes: int,
        network: str = "convnet",
        *,
        in_chans: int = 3,
        image_size: int = 32,
        network_args: dict[str, Any] | None = None,
        matching: Matching | None = None,
        images_per_class: int = 10,
        init: Literal["real", "noise", "kcenter"] | str = "real",
        batch_real: int = 256,
        augmentation: SiameseAugmentation | None = None,
        steps_per_epoch: int | None = None,
        networks_per_epoch: int | None = None,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.SGD(parameters, lr=1.0, momentum=0.5),
        training: SmallSetTraining | None = None,
        networks: int = 1,
        test_networks: int = 5,
        baselines: Sequence[Baseline] = BASELINES,
        evaluation_network: str | None = None,
        evaluation_network_args: dict[str, Any] | None = None,
        evaluation_init: Literal["torch", "network"] = "torch",
        grid_every: int = 0,
    ) -> None:
        super().__init__()
        if num_classes is None or num_classes < 2:
            raise InputError(f"num_classes must be at least 2 but is {num_classes}: set it, as the data does not say")
        at_least(1, images_per_class=images_per_class, batch_real=batch_real)
        at_least(1, steps_per_epoch=steps_per_epoch, networks_per_epoch=networks_per_epoch)
        at_least(1, networks=networks, test_networks=test_networks)
        at_least(0, grid_every=grid_every)
        known = get_args(Baseline)
        if isinstance(baselines, str) or set(baselines) - set(known):
            raise InputError(f"baselines must be a list of some of {', '.join(known)} but is {baselines}")
        if not isinstance(network, str):
            raise InputError(
                f"network must be a name of timm's, as each step builds one with fresh weights, but is a"
                f" {type(network).__name__}: register it with timm.models.register_model"
            )
        if init not in STARTS and not init.endswith(".safetensors"):
            raise InputError(f"init must be real, noise or kcenter but is {init!r}: or name a .safetensors file")
        matching = rebuild(matching, Matching, argument="matching") or DataDAM()
        augmentation = rebuild(augmentation, SiameseAugmentation, argument="augmentation")
        training = rebuild(training, SmallSetTraining, argument="training") or SmallSetTraining()
        # As in `Classification`, a checkpoint holds only plain values.
        described = {} if has_written_hyperparameters() else {"matching": matching, "augmentation": augmentation}
        described |= {"training": training} if described else {}
        self.save_hyperparameters(ignore=[*described, "optimizer"] if described else [], logger=False)
        self.hparams.update({name: describe(value) for name, value in described.items()})
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.image_size = image_size
        self.images_per_class = images_per_class
        self.init = init
        self.batch_real = batch_real
        self.augmentation = augmentation
        self.optimizer = optimizer
        self.training_of_networks = training
        self.networks = networks
        self.test_networks = test_networks
        self.baselines = tuple(baselines)
        self.grid_every = grid_every
        self.matching = matching
        self._network_args = (network, network_args or {})
        one_of(("torch", "network"), evaluation_init=evaluation_init)
        same = evaluation_network in (None, network)
        self._resets = not same and evaluation_init == "torch"
        args = network_args if same and evaluation_network_args is None else evaluation_network_args
        self._evaluation_args = (evaluation_network or network, args or {})
        self._evaluation_network(seed=0)  # fails early if the network cannot be built
        # In a list: a sub-module would be in checkpoints, in the optimizer and synchronized by DDP.
        self._network = [self._build(*self._network_args, seed=0).eval()]
        for module in self._network[0].modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()  # matching uses the statistics of the batch
        self.memory_format = fastest_memory_format(self._network[0])
        if self.memory_format is not torch.preserve_format:
            self._network[0].to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.matching.attach(self._network[0], images_per_class=images_per_class)
        self.steps_per_epoch = steps_per_epoch or (networks_per_epoch or 100) * self.matching.network_steps
        # Unsuitable layers are found here rather than in the first step.
        trial = ClassBatch(torch.zeros(2, in_chans, image_size, image_size), torch.arange(2), [1, 1])
        self.matching.terms(self._network[0], trial, trial, num_classes)

        shape = num_classes, images_per_class, in_chans, image_size, image_size
        self.images = nn.Parameter(torch.zeros(shape))
        self.register_buffer("labels", torch.arange(num_classes).repeat_interleave(images_per_class), persistent=False)
        for name in ("random", "kcenter"):
            self.register_buffer(f"{name}_images", torch.zeros(shape))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))
        self._means = RunningMeans()
        self._step = 0
        self._batch_done: tuple[int, int] | None = None
        self._position = (0, 0)
        self._restored: dict[str, Tensor] | None = None
        self._batches: ClassBatches | None = None
        self._scores = None
        self.rank, self.world = 0, 1

    labels: Tensor
    random_images: Tensor
    kcenter_images: Tensor
    ready: Tensor

    # -- data --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Read the real images, choose the initial images, and replace the training loader."""
        precision = str(self.trainer.precision)
        if not precision.startswith("32") and not precision.endswith("mixed"):
            raise InputError(
                f"precision {precision} does not suit images that are made in single precision: choose"
                " --trainer.precision 32-true or bf16-mixed"
            )
        if stage != "fit":
            return
        self.rank, self.world = self.trainer.global_rank, self.trainer.world_size
        if self.world > 1 and self.matching.mixes_classes:
            raise InputError(
                f"network {self._network_args[0]} has batch normalisation, whose statistics are of all classes, which"
                f" {self.world} processes share: choose a network without, for convnet --model.network_args.norm"
                " instance, or one process"
            )
        if self.world > self.num_classes:
            raise InputError(f"{self.world} processes share {self.num_classes} classes: use at most as many processes")
        ExactResume.attach(self.trainer)
        self._start_from(RealImages(self._real_batches(), self.num_classes))
        # From here on, batches come from `train_dataloader` below.
        training_data_source(self.trainer).instance = self

    def train_dataloader(self) -> Any:
        """Return a loader of real images of this process's classes, with ``steps_per_epoch`` batches."""
        assert self._batches is not None
        return self._batches.loader(self._position)

    # -- distillation ------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Move the matching network to the device."""
        self._batch_done = None
        self._network[0].to(self.device)
        if self._restored is not None:
            self._network[0].load_state_dict(self._restored)
            self._restored = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the matching loss, summed over classes."""
        assert self._batches is not None
        self._refuse_second_step(batch_idx)
        network = self._renewed_network()
        classes, number = self._batches.classes, self.images_per_class
        images, labels = (value[self.rank :: self.world].flatten(0, 1) for value in (self.images, self._label_rows()))
        real = self._augmented(ClassBatch(batch[0], batch[1], self._batches.counts), classes)
        synthetic = self._augmented(ClassBatch(images, labels, [number] * len(classes)), classes)
        terms = self.matching.terms(network, real, synthetic, self.num_classes)
        loss = torch.stack(list(terms.values())).sum()
        self._step += 1
        values = {f"train/{name}": term.detach() for name, term in {"loss": loss, **terms}.items()}
        self._means.update(values, 1)
        # The loss is a sum over classes, which are split over the processes, but DDP averages gradients.
        return loss * self.world

    def _refuse_second_step(self, batch_idx: int) -> None:
        """Raise an error if the step of this batch was computed before."""
        here = self.current_epoch, batch_idx
        if here == self._batch_done:
            raise InputError(
                "a step of DatasetDistillation was computed twice, which counts two steps: leave out the callback or"
                " the optimizer that calls training_step again"
            )
        self._batch_done = here

    def _label_rows(self) -> Tensor:
        return self.labels.view(self.num_classes, -1)

    def _renewed_network(self) -> nn.Module:
        """Return the network of this step: with new weights, or trained one step further."""
        network = self._network[0]
        if self._step % self.matching.network_steps == 0:
            seed = derived_seed(Stream.MATCHING_NETWORK, run_seed(), self._step)
            network.load_state_dict(self._build(*self._network_args, seed=seed).state_dict())
        else:
            images = to_memory_format(self.images.detach().flatten(0, 1), self.memory_format)
            seed = derived_seed(Stream.MATCHING_TRAINING, run_seed(), self._step)
            self.matching.train_network(
                network,
                images,
                self.labels,
                augment=lambda batch, number: self._augment_each(batch, (seed, number)),
                seed=seed,
            )
        return network

    def _augmented(self, batch: ClassBatch, classes: Sequence[int]) -> ClassBatch:
        """Return the batch with one transform per class, determined by seed, step and class."""
        images = batch.images
        if self.augmentation is not None:
            parts = zip(classes, images.split(list(batch.counts)), strict=True)
            key = run_seed(), self._step
            images = torch.cat([self.augmentation(part, (*key, label)) for label, part in parts])
        return ClassBatch(to_memory_format(images, self.memory_format), batch.labels, batch.counts)

    def _augment_each(self, images: Tensor, key: Sequence[int]) -> Tensor:
        return images if self.augmentation is None else self.augmentation(images, key, shared=False)

    def on_train_epoch_start(self) -> None:
        """Reset the means."""
        self._means.reset()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means, and draw the images every ``grid_every`` epochs."""
        self.log_dict(self._means.compute(), prog_bar=True, sync_dist=True, reduce_fx="sum")
        if self.grid_every and (self.current_epoch + 1) % self.grid_every == 0 and self.trainer.is_global_zero:
            self.draw()

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Refuse to predict: the images are not a classifier."""
        raise InputError("DatasetDistillation has no network to predict with: train one on --data DistilledImages")

    def configure_optimizers(self) -> Any:
        """Return the optimizer over the images."""
        return self.optimizer([self.images])

    def _build(self, name: str, args: Mapping[str, Any], *, seed: int) -> nn.Module:
        """Return a network with initial weights that depend only on the seed."""
        with isolated_rng(seed):
            return create_network(
                name,
                num_classes=self.num_classes,
                in_chans=self.in_chans,
                network_args=dict(args),
                image_size=self.image_size,
            )

    # -- resume ------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the position in the run, and the matching network if it has steps left."""
        steps = self.matching.network_steps
        between = self._step % steps and {k: v.cpu().clone() for k, v in self._network[0].state_dict().items()}
        checkpoint["distillation"] = {
            "step": self._step,
            "position": ExactResume.attach(self.trainer).position,
            "network": between or None,
            "means": self._means.state_dict(self.trainer.strategy.reduce),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from the checkpoint's position."""
        state = checkpoint.get("distillation")
        if state is None:
            raise InputError("the checkpoint is not of DatasetDistillation: give one of its own with --ckpt_path")
        self._step, self._position, self._restored = state["step"], tuple(state["position"]), state["network"]
        self._means.load_state_dict(state.get("means", {}))

    def teardown(self, stage: str) -> None:
        """Forget the position of a resumed fit, so that the next fit starts at the beginning."""
        if stage == "fit":
            self._position = (0, 0)
