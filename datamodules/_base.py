"""Base class of all image datamodules: splits, sampling, augmentation on the device, and resuming."""

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
    """Base class of all datamodules: images in memory as uint8, augmented and normalized on the training device.

    The model gets a batch ``(images, labels)``: normalized images, float32 ``(N, C, H, W)``, and class indices
    ``(N,)``. An image's augmentation depends only on (seed, epoch, index of the image). It is the same with any batch
    size, number of workers or processes, and in a resumed run. Nothing draws from the global random generators.

    Training drops the last, smaller batch of an epoch unless it is the only one. If more than 5 % of the images are
    dropped, a warning gives their number.

    Args:
        batch_size: Training images per step in each process, as usual in Lightning. W processes together read W times
            as many.
        eval_batch_size: Images per batch in validation, test and prediction. None uses ``batch_size``.
        num_workers: Worker processes that load batches. 0 loads in the main process, the fastest choice for images in
            memory.
        val_fraction: Share per class taken from the training part for validation, in [0, 1). With 0, all images are
            trained on, and validation uses a fixed tenth of them without augmentation; this does not measure
            generalization.
        split_seed: Seed of the split, of ``subset`` and of ``label_noise``. Runs with different ``seed`` thus share
            their data.
        imbalance_ratio: Ratio of the largest to the smallest class of a long-tailed training set (the imbalance factor
            of the literature), e.g. 100; 1 is off. Class k of C keeps int(n_max * ratio ** (-k / (C - 1))) images
            (https://arxiv.org/abs/1901.05555), where n_max is the size of the largest class after the split. A class
            with fewer images keeps all of them. Images are chosen as in LDAM-DRW (https://arxiv.org/abs/1906.07413),
            independent of ``split_seed`` and ``seed``: with ``val_fraction`` 0, `CIFAR10` and `CIFAR100` give the
            published sets. Validation and test images are not changed. It is applied before ``subset`` and
            ``label_noise``.
        subset: Part of the training images to use: a float in (0, 1] is a share per class, an int a number of images
            per class. None uses all.
        label_noise: Share of the training labels replaced by a uniformly drawn other class, in [0, 1). Validation and
            test labels are not changed.
        seed: Seed of order and augmentation. None takes the seed given to ``seed_everything``, or 0.
        crop_padding: Largest shift of the random crop in pixels, in each direction; 0 is off.
        crop_mode: Content of the crop beyond the border: the mirrored image ("reflect") or black ("zero").
        flip: Flip images left to right with probability 0.5.
        cutout: Side in pixels of a square set to the mean color at a random place; 0 is off.
        transform: An extra augmentation such as a `torchvision.transforms.v2` or kornia module. It is called for each
            training image on the training device, shape ``(1, C, H, W)``, float in [0, 1], after crop and flip and
            before normalization. It may use the global generators: they are seeded for each image and restored.

    Attributes:
        num_classes: Number of classes.
        in_chans: Channels of an image.
        image_size: Height and width of an image in pixels.
        mean: Channel means of images in [0, 1].
        std: Channel standard deviations of images in [0, 1].
        class_names: Names of the classes, in the order of the labels.
        preprocessing: How evaluation resizes images of other sizes: the shorter side is resized to ``image_size /
            crop_pct`` by ``interpolation``, then the center is cropped. Empty if all images have ``image_size``.
        class_counts: Number of training images per label, for all ``num_classes``, with ``label_noise``. Set by
            ``setup("fit")`` or ``setup("validate")``, empty before.
        train_set: Training images, after ``setup("fit")``.
        val_set: Validation images, after ``setup("fit")`` or ``setup("validate")``.
        test_set: Test images, after ``setup("test")``.
        predict_set: Images to predict, after ``setup("predict")``.
        predict_names: Names of the images in the order of prediction, after ``setup("predict")``.
        batch_indices: Indices in ``train_set`` of the last training batch's images, shape ``(N,)``; None after a batch
            of another set.

    Raises:
        InputError: If an argument is out of range, or the split leaves a class without images (at ``setup``).
    """

    num_classes: int
    in_chans: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    preprocessing: Mapping[str, Any] = MappingProxyType({})

    _own_val = False
    """True if the data has separate validation images; none are then taken from the training part."""
    _keeps_all = False
    """True if an epoch also reads the last, smaller batch."""

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
            Images that can be indexed by a tensor, as accepted by :meth:`_dataset`, and labels ``(N,)``.
        """

    def _dataset(self, images: Any, labels: Tensor, seed: int | None = None) -> EpochDataset:
        """Return a data set of images from :meth:`_read`; ``seed`` None is for evaluation."""
        return MemoryImages(images, labels, seed)

    def setup(self, stage: str) -> None:
        """Read and split the data of the stage, once."""
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
        """Forget the position of a resumed fit, so that the next fit starts at the beginning."""
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
        """Raise if a class has fewer than ``least`` training images, except classes that were empty before."""
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
        """Return shuffled batches of ``train_set``; the class describes their augmentation on the device."""
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
        """Return batches of the whole ``train_set`` in order and without augmentation, as in evaluation."""
        train_set = _ready(self.train_set, "fit")
        return self._loader(self._dataset(*train_set.content()), self.eval_batch_size)

    def val_dataloader(self) -> DataLoader:
        """Return batches of ``val_set`` in order."""
        return self._loader(_ready(self.val_set, "validate"), self.eval_batch_size)

    def test_dataloader(self) -> DataLoader:
        """Return batches of ``test_set`` in order."""
        return self._loader(_ready(self.test_set, "test"), self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader:
        """Return batches of the images named by ``predict_names``; unknown labels are -1."""
        return self._loader(_ready(self.predict_set, "predict"), self.eval_batch_size)

    def _loader(self, dataset: EpochDataset, batch_size: int, **options: Any) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=dataset.collate,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            # Without a generator, every iteration draws the seed of its workers from the global generator.
            generator=torch.Generator().manual_seed(self._seed()),
            **options,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn a batch of our images into ``(normalized float images, labels)``; return any other batch unchanged."""
        if not isinstance(batch, (tuple, list)) or not (_is_uint8_images(batch[0]) or len(batch) == 3):
            return batch
        images, labels, *randoms = batch
        self.batch_indices = randoms[0][:, -1] if randoms else None
        images = self._augment(images, randoms[0]) if randoms else self._normalized(images)
        if self.trainer is not None:
            # Lightning converts a batch to the training precision before this hook, when the images were still uint8.
            images = self.trainer.precision_plugin.convert_input(images)
        return images, labels

    def _augment(self, images: Tensor, randoms: Tensor) -> Tensor:
        """Augment and normalize uint8 images; ``randoms`` has `RANDOMS` columns and the index."""
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
        """Normalize images, uint8 or floating in [0, 1], for the network."""
        return normalize(images, self.mean, self.std)

    # -- resume ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, int]:
        """Return the current epoch and the number of its samples read by all processes together."""
        if self.trainer is None:
            return {}
        epoch, batches = ExactResume.attach(self.trainer).position
        together = self.batch_size * self.trainer.world_size
        return {"epoch": epoch, "samples": batches * together, "batch": together, "seed": self._seed()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Make the next training loader continue from the checkpoint's position.

        Raises:
            InputError: If the checkpoint was written within an epoch and batch size or seed have changed since.
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
    """Tells the training set the epoch, also if our sampler was replaced by another."""

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
