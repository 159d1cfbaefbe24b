"""Base class of all image datamodules: split, sample, augment on the device, resume."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from ..modules.augmentation.batches import normalize, random_crop_flip, random_cutout, transform_each
from ..modules.core.checks import check
from ..modules.core.errors import InputError
from ..modules.core.sampling import (
    EpochSampler,
    Stream,
    epoch_generator,
    long_tail_choice,
    noisy_labels,
    run_seed,
    stratified_choice,
)
from ..modules.exact_resume import ExactResume
from ._datasets import RANDOM_LIMIT, EpochDataset, MemoryImages


class ImageDataModule(LightningDataModule, ABC):
    """Base of all datamodules: images held in memory as uint8, augmented and normalised on the training device.

    A batch reaches the model as ``(images, labels)``: float32 ``(N, C, H, W)``, normalised, and class indices
    ``(N,)``. An image's augmentation depends on (seed, epoch, its index) alone, so it is the same with any batch size,
    number of workers or processes, and in a resumed run. Nothing draws from the global random generators. Training
    drops the last, smaller batch of an epoch unless it is the only one; a warning says how many images an epoch leaves
    out if they are more than 5 %.

    Args:
        batch_size: Training images per step in each process, as everywhere in Lightning: W processes together read
            W times as many.
        eval_batch_size: Images per batch in validation, test and prediction; None takes ``batch_size``.
        num_workers: Worker processes that load batches; 0 loads in the main process, which is fastest for images
            in memory.
        val_fraction: Share of every class taken from the training part for validation, in [0, 1). 0 trains on all
            images and validates on a fixed tenth of them, without augmentation: no measure of generalisation.
        split_seed: Seed of the split, of ``subset`` and of ``label_noise``, so that runs with different ``seed`` share
            their data.
        imbalance_ratio: Train on a long tail: largest class over smallest, the published imbalance factor, e.g. 100; 1
            is off. Class k of C keeps int(n_max * ratio ** (-k / (C - 1))) images, with n_max the size of the largest
            class after the split (https://arxiv.org/abs/1901.05555); a class that has fewer keeps all it has. Images
            are chosen by the rule of LDAM-DRW (https://arxiv.org/abs/1906.07413), which draws from neither
            ``split_seed`` nor ``seed``: with ``val_fraction`` 0, `CIFAR10` and `CIFAR100` give the published sets.
            Validation and test images stay as balanced as they were. It comes before ``subset`` and ``label_noise``.
        subset: Train on part of the images after the split: a float in (0, 1] is a share of each class, an int a number
            of images per class; None is all.
        label_noise: Share of the training labels replaced by a class drawn uniformly from the others, in [0, 1).
            Validation and test labels stay as they are.
        seed: Seed of order and augmentation; None takes the one given to ``seed_everything``, or 0.
        crop_padding: Pixels by which a random crop may shift the image in each direction; 0 is off.
        crop_mode: Pixels of the crop beyond the border: the image mirrored ("reflect") or black ("zero").
        flip: Mirror every second image left to right, at random.
        cutout: Side in pixels of a square set to the mean colour at a random place; 0 is off.
        transform: An extra augmentation such as a `torchvision.transforms.v2` or kornia module, called for each
            training image on the training device, shape ``(1, C, H, W)``, float in [0, 1], after crop and flip and
            before normalisation. It may use the global generators: they are seeded for each image and restored.

    Attributes:
        num_classes: Number of classes.
        in_chans: Channels of an image.
        image_size: Height and width of an image in pixels.
        mean: Mean per channel, on the scale of [0, 1].
        std: Standard deviation per channel, on the same scale.
        class_names: Names of the classes, in the order of the labels.
        preprocessing: How evaluation makes images of ``image_size`` from others: their shorter side is resized to
            ``image_size / crop_pct`` by ``interpolation``, then the centre is cut out. Empty where all have that size.
        class_counts: Training images with each label, of all ``num_classes``, as training sees them, ``label_noise``
            included; after ``setup("fit")`` or ``setup("validate")``, empty before.
        train_set: Training images, after ``setup("fit")``.
        val_set: Validation images, after ``setup("fit")`` or ``setup("validate")``.
        test_set: Test images, after ``setup("test")``.
        predict_set: Images to predict, after ``setup("predict")``.
        predict_names: Names of the images in the order of prediction, after ``setup("predict")``.
        batch_indices: Index in ``train_set`` of each image of the last training batch, shape ``(N,)``; None after a
            batch of another set.

    Raises:
        InputError: If an argument is out of its range, or the split leaves a class without images (at ``setup``).
    """

    num_classes: int
    in_chans: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    preprocessing: Mapping[str, Any] = MappingProxyType({})

    _own_val = False
    """Whether the data comes with validation images, so that none are taken from the training part."""
    _keeps_all = False
    """Whether an epoch also reads the last, smaller batch."""

    def __init__(
        self,
        *,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        imbalance_ratio: float = 1.0,
        subset: int | float | None = None,
        label_noise: float = 0.0,
        seed: int | None = None,
        crop_padding: int = 0,
        crop_mode: Literal["reflect", "zero"] = "reflect",
        flip: bool = False,
        cutout: int = 0,
        transform: Callable | None = None,
    ) -> None:
        super().__init__()
        check(batch_size >= 1, "batch_size", batch_size, "at least 1")
        check(eval_batch_size is None or eval_batch_size >= 1, "eval_batch_size", eval_batch_size, "at least 1")
        check(num_workers >= 0, "num_workers", num_workers, "at least 0")
        check(0 <= val_fraction < 1, "val_fraction", val_fraction, "in [0, 1)")
        check(split_seed >= 0, "split_seed", split_seed, "at least 0")
        check(imbalance_ratio >= 1, "imbalance_ratio", imbalance_ratio, "at least 1 (largest class over smallest)")
        check(
            subset is None or (subset >= 1 if isinstance(subset, int) else 0 < subset <= 1),
            "subset",
            subset,
            "a share in (0, 1], or a whole number of images per class from 1",
        )
        check(0 <= label_noise < 1, "label_noise", label_noise, "in [0, 1)")
        check(seed is None or seed >= 0, "seed", seed, "at least 0")
        check(0 <= crop_padding < self.image_size, "crop_padding", crop_padding, f"in [0, {self.image_size})")
        check(crop_mode in ("reflect", "zero"), "crop_mode", crop_mode, "reflect or zero")
        check(cutout >= 0, "cutout", cutout, "at least 0")
        check(transform is None or callable(transform), "transform", transform, "callable, or none")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.imbalance_ratio = imbalance_ratio
        self.subset = subset
        self.label_noise = label_noise
        self.seed = seed
        self.crop_padding = crop_padding
        self.crop_mode: Literal["reflect", "zero"] = crop_mode
        self.flip = flip
        self.cutout = cutout
        self.transform = transform
        self.class_counts: list[int] = []
        self.train_set: EpochDataset | None = None
        self.val_set: EpochDataset | None = None
        self.test_set: EpochDataset | None = None
        self.predict_set: EpochDataset | None = None
        self.predict_names: list[str] = []
        self.batch_indices: Tensor | None = None
        self._resume: tuple[int, int] | None = None

    # -- set-up ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _read(self, part: str) -> tuple[Any, Tensor]:
        """Read the "train", "val" (if ``_own_val``) or "test" part.

        Returns:
            Images that can be indexed by a tensor, in the form that :meth:`_dataset` takes, and labels ``(N,)``.
        """

    def _dataset(self, images: Any, labels: Tensor, seed: int | None = None) -> EpochDataset:
        """A data set over images as :meth:`_read` gives them; ``seed`` None is for evaluation."""
        return MemoryImages(images, labels, seed)

    def setup(self, stage: str) -> None:
        """Read and split the data that the stage needs, once."""
        if stage == "fit":
            self._resume = None
            if self.trainer is not None:
                callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
                callbacks[:] = [callback for callback in callbacks if not isinstance(callback, _TellEpoch)]
                callbacks.append(_TellEpoch(self))
                ExactResume.attach(self.trainer)
        if stage in ("fit", "validate"):
            if self.train_set is None:
                self._setup_train()
            self.train_set.seed = self._seed()  # type: ignore
        if stage in ("test", "predict") and self.test_set is None:
            self.test_set = self._dataset(*self._checked("test"))
        if stage == "predict":
            self.predict_set = self.test_set
            self.predict_names = [f"test/{index:05d}" for index in range(len(self.test_set))]  # type: ignore

    def teardown(self, stage: str) -> None:
        """Forget where a resumed fit had started, so that the next one begins at its beginning."""
        if stage == "fit":
            self._resume = None

    def _setup_train(self) -> None:
        images, labels = self._checked("train")
        val, train = stratified_choice(labels, self.val_fraction or 0.1, self._generator(Stream.SPLIT))
        if self._own_val:
            train = torch.arange(len(labels))
        elif self.val_fraction == 0:
            train = torch.arange(len(labels))
            warnings.warn(
                "val_fraction is 0: val/* is measured on a tenth of the training images and says nothing about"
                " generalisation",
                stacklevel=2,
            )
        self._require_images(labels, train, 1, f"val_fraction={self.val_fraction} leaves")
        if self.imbalance_ratio > 1:
            train = train[long_tail_choice(labels[train], self.imbalance_ratio, num_classes=self.num_classes)]
            self._require_images(labels, train, 1, f"imbalance_ratio={self.imbalance_ratio} leaves")
        if self.subset is not None:
            if isinstance(self.subset, int):
                self._require_images(labels, train, self.subset, f"subset={self.subset} asks for more than")
            train = train[stratified_choice(labels[train], self.subset, self._generator(Stream.SUBSET))[0]]
        self.val_set = self._dataset(*(self._checked("val") if self._own_val else (images[val], labels[val])))
        train_labels = labels[train]
        if self.label_noise:
            check(self.num_classes > 1, "label_noise", self.label_noise, "0 where there is only one class")
            train_labels = noisy_labels(
                train_labels, self.label_noise, self.num_classes, self._generator(Stream.LABEL_NOISE)
            )
        self.class_counts = train_labels.bincount(minlength=self.num_classes).tolist()
        self.train_set = self._dataset(images[train], train_labels, self._seed())

    def _checked(self, part: str) -> tuple[Any, Tensor]:
        images, labels = self._read(part)
        if len(labels) and (labels.min() < 0 or labels.max() >= self.num_classes):
            raise InputError(
                f"the {part} labels of {type(self).__name__} run from {int(labels.min())} to {int(labels.max())}"
                f" but must lie in 0..{self.num_classes - 1}: its files are damaged or of another data set"
            )
        return images, labels

    def _require_images(self, labels: Tensor, train: Tensor, least: int, what: str) -> None:
        """Raise if a class has fewer than ``least`` training images, unless it had none to begin with."""
        total = labels.bincount(minlength=self.num_classes)
        left = labels[train].bincount(minlength=self.num_classes)
        short = ((left < least) & (total > 0)).nonzero().flatten().tolist()
        if short:
            name, had, has = self.class_names[short[0]], int(total[short[0]]), int(left[short[0]])
            raise InputError(
                f"{what} {has} training images of class {name!r} ({had} before the split):"
                " choose a smaller value or add images"
            )

    def _generator(self, stream: Stream) -> torch.Generator:
        return epoch_generator(self.split_seed, 0, stream)

    def _seed(self) -> int:
        return run_seed() if self.seed is None else self.seed

    # -- loaders -----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of ``train_set``; see the class for their augmentation on the device."""
        dataset = _ready(self.train_set, "fit")
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        drop_last = self._drops_last(len(dataset), world)
        sampler = EpochSampler(dataset, seed=self._seed(), num_replicas=world, rank=rank, drop_last=drop_last)
        epoch, samples = self._resume or (0, 0)
        sampler.resume_at(epoch, samples // world)
        return self._loader(dataset, self.batch_size, sampler=sampler, drop_last=drop_last)

    def _drops_last(self, size: int, world: int) -> bool:
        """Return whether an epoch drops its last, smaller batch; warn if that drops many images."""
        share = size // world
        # A last batch of one image would break batch normalization.
        if share < self.batch_size or (self._keeps_all and -(-size // world) % self.batch_size != 1):
            return False
        left_out = size - share // self.batch_size * self.batch_size * world
        if left_out > 0.05 * size:
            rank_zero_warn(
                f"an epoch leaves out {left_out} of {size} training images, as its last batch would be smaller than"
                f" batch_size {self.batch_size}: choose a smaller batch_size to train on more of them in an epoch"
            )
        return True

    def plain_train_dataloader(self) -> DataLoader:
        """Batches of all of ``train_set`` in order and as for evaluation: without augmentation, the same always."""
        train_set = _ready(self.train_set, "fit")
        return self._loader(self._dataset(*train_set.content()), self.eval_batch_size)

    def val_dataloader(self) -> DataLoader:
        """Batches of ``val_set`` in order."""
        return self._loader(_ready(self.val_set, "validate"), self.eval_batch_size)

    def test_dataloader(self) -> DataLoader:
        """Batches of ``test_set`` in order."""
        return self._loader(_ready(self.test_set, "test"), self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader:
        """Batches of the images named by ``predict_names``; a label that is not known is -1."""
        return self._loader(_ready(self.predict_set, "predict"), self.eval_batch_size)

    def _loader(self, dataset: EpochDataset, batch_size: int, **options: Any) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=dataset.collate,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            # Without one, every iteration draws the seed of its workers from the global generator.
            generator=torch.Generator().manual_seed(self._seed()),
            **options,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn a batch of our images into ``(normalised float images, labels)``; any other batch passes through."""
        if not isinstance(batch, (tuple, list)) or not (_is_uint8_images(batch[0]) or len(batch) == 3):
            return batch
        images, labels, *randoms = batch
        self.batch_indices = randoms[0][:, -1] if randoms else None
        images = self._augment(images, randoms[0]) if randoms else self._normalized(images)
        if self.trainer is not None:
            # Lightning has converted the batch to the precision of the training when there was nothing to convert.
            images = self.trainer.precision_plugin.convert_input(images)
        return images, labels

    def _augment(self, images: Tensor, randoms: Tensor) -> Tensor:
        """uint8 images to normalised, augmented ones; ``randoms`` has `RANDOMS` columns and the index."""
        uniform = randoms / RANDOM_LIMIT
        if self.crop_padding or self.flip:
            images = random_crop_flip(
                images, uniform[:, :3], padding=self.crop_padding, mode=self.crop_mode, flip=self.flip
            )
        if self.transform is not None:
            images = images if images.is_floating_point() else images.float() / 255
            images = transform_each(images, randoms[:, 5].tolist(), self.transform)
        images = self._normalized(images)
        if self.cutout:
            images = random_cutout(images, uniform[:, 3:5], size=self.cutout)
        return images

    def _normalized(self, images: Tensor) -> Tensor:
        """Images, uint8 or floating in [0, 1], as the network gets them."""
        return normalize(images, self.mean, self.std)

    # -- resume ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, int]:
        """The epoch in progress and how many of its samples all processes together have read."""
        if self.trainer is None:
            return {}
        epoch, batches = ExactResume.attach(self.trainer).position
        together = self.batch_size * self.trainer.world_size
        return {"epoch": epoch, "samples": batches * together, "batch": together, "seed": self._seed()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next training loader go on where the checkpoint was written.

        Raises:
            InputError: If the checkpoint was written within an epoch and the rest of it would have other samples.
        """
        if not state_dict:
            return
        if state_dict["samples"] and self.trainer is not None:
            now = {"batch": self.batch_size * self.trainer.world_size, "seed": self._seed()}
            for name, text in (("batch", "batches, of all processes together, of {}"), ("seed", "the seed {}")):
                was = state_dict.get(name, now[name])
                if was != now[name]:
                    raise InputError(
                        f"the checkpoint was written within epoch {state_dict['epoch']} with {text.format(was)}, which"
                        f" is {now[name]} now: keep it, or take a checkpoint of the end of an epoch"
                    )
        self._resume = state_dict["epoch"], state_dict["samples"]


class _TellEpoch(Callback):
    """Tells the training set the epoch even where another sampler has taken the place of ours."""

    def __init__(self, datamodule: ImageDataModule) -> None:
        self.datamodule = datamodule

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _ready(self.datamodule.train_set, "fit").set_epoch(trainer.current_epoch)


def _ready(dataset: EpochDataset | None, stage: str) -> EpochDataset:
    if dataset is None:
        raise RuntimeError(f'call setup("{stage}") first')
    return dataset


def _is_uint8_images(images: object) -> bool:
    return isinstance(images, Tensor) and images.dtype == torch.uint8
