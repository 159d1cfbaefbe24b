"""Evaluation of a synthetic set: networks trained on it and tested on real images, pictures, and export."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.utils import make_grid

from ..modules.artifacts.synthetic_set import as_pixels, save_set, through_pixels, write_png
from ..modules.core.errors import InputError
from ..modules.core.initialization import reset_parameters
from ..modules.core.sampling import Stream, derived_seed, isolated_rng, run_seed
from ._class_batches import RealImages

Baseline = Literal["random", "kcenter", "png", "whole"]
BASELINES: tuple[Baseline, ...] = ("random", "kcenter", "png")
"""Sets that a test compares with the distilled set by default. The whole training set takes long."""


class SetScores:
    """Accuracy and loss of networks, for several sets with the same number of networks.

    Args:
        networks: Trained networks by the name of their training set; "" is the distilled set.
        device: Device of the counts.
    """

    def __init__(self, networks: Mapping[str, Sequence[nn.Module]], device: torch.device) -> None:
        self.networks = networks
        number = len(next(iter(networks.values())))
        self._correct = torch.zeros(len(networks), number, device=device)
        self._loss = torch.zeros_like(self._correct)
        self._count = torch.zeros((), device=device)

    def update(self, images: Tensor, labels: Tensor) -> None:
        """Count a batch of real images."""
        for row, networks in enumerate(self.networks.values()):
            for column, network in enumerate(networks):
                logits = network(images).float()
                self._correct[row, column] += (logits.argmax(1) == labels).sum()
                self._loss[row, column] += F.cross_entropy(logits, labels, reduction="sum")
        self._count += len(labels)

    def compute(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return means, population standard deviations and single values.

        Args:
            total: Sums a tensor over processes.

        Returns:
            ``loss`` of the distilled set. For the distilled set also ``accuracy``, ``accuracy_std`` and ``accuracy_0``,
            …; for another set ``accuracy_<set>``, ``accuracy_<set>_std`` and ``accuracy_<set>_0``, ….
        """
        correct, loss, count = (total(value) for value in (self._correct, self._loss, self._count))
        values = {"loss": loss[0].mean() / count}
        for name, accuracies in zip(self.networks, correct / count, strict=True):
            stem = f"accuracy_{name}" if name else "accuracy"
            values[stem] = accuracies.mean()
            if len(accuracies) > 1:
                values[f"{stem}_std"] = accuracies.std(correction=0)
                values |= {f"{stem}_{index}": value for index, value in enumerate(accuracies)}
        return values


class SetEvaluation:
    """The part of `DatasetDistillation` that validates, tests and writes the images."""

    _scores: SetScores | None

    def on_validation_epoch_start(self: Any) -> None:
        """Train networks on the images."""
        # The sanity check only tests the loaders; training networks for it would waste time.
        self._scores = None
        if not self.trainer.sanity_checking:
            self._scores = self._trained({"": self.images}, self.networks, "val")

    def on_test_epoch_start(self: Any) -> None:
        """Train networks on the images and on the baseline sets."""
        sets: dict[str, Tensor | RealImages] = {"": self.images}
        for name, images in (("random", self.random_images), ("kcenter", self.kcenter_images)):
            # If images were set in Python and fit has not run, there are no baseline images.
            if name in self.baselines and images.any():
                sets[name] = images
        data = self._facts()
        if data is not None and "png" in self.baselines:
            sets["png"] = through_pixels(self.images, data.mean, data.std)
        if "whole" in self.baselines:
            sets["whole"] = self._whole_set()
        self._scores = self._trained(sets, self.test_networks, "test")

    def _whole_set(self: Any) -> RealImages:
        """Return all training images of the datamodule."""
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(datamodule, "plain_train_dataloader"):
            raise InputError("baselines: whole needs a datamodule of lightning-recipes, which has the training images")
        datamodule.setup("fit")
        batches = ((self._served(*batch), batch[1]) for batch in datamodule.plain_train_dataloader())
        return RealImages(batches, self.num_classes)

    def _trained(self: Any, sets: Mapping[str, Tensor | RealImages], number: int, stage: str) -> SetScores:
        """Return networks trained on each set; every process trains a share."""
        if not self.images.any():
            raise InputError(
                "there are no distilled images yet: run fit first, or name its checkpoint with --ckpt_path"
            )
        start = time.perf_counter()
        world, rank = self.trainer.world_size, self.trainer.global_rank
        seeds = [derived_seed(Stream.EVALUATION_NETWORK, run_seed(), index) for index in range(number)]
        trained: dict[str, list[nn.Module]] = {}
        # Lightning evaluates in inference mode.
        with torch.inference_mode(False), torch.enable_grad():
            for name, one in sets.items():
                real = isinstance(one, RealImages)
                images, labels = (one.images, one.labels) if real else (one.flatten(0, 1), self.labels)
                networks = [self._evaluation_network(seed=seed).to(self.device) for seed in seeds]
                self.training_of_networks(
                    networks[rank::world],
                    images.detach().to(self.device, copy=True),
                    labels.to(self.device, copy=True),
                    seeds=seeds[rank::world],
                    augment=None if self.augmentation is None else self._augment_each,
                )
                if world > 1:
                    for index, network in enumerate(networks):
                        network.load_state_dict(self.trainer.strategy.broadcast(network.state_dict(), index % world))
                trained[name] = [network.eval() for network in networks]
        self.log(f"{stage}/training_seconds", time.perf_counter() - start, rank_zero_only=True)
        return SetScores(trained, self.device)

    def _evaluation_network(self: Any, *, seed: int) -> nn.Module:
        """Return a network to train on a set, with initial weights that depend only on the seed."""
        network = self._build(*self._evaluation_args, seed=seed)
        if self._resets:
            with isolated_rng(seed):
                reset_parameters(network)
        return network

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        """Count the correct predictions."""
        self._count(batch)

    def test_step(self: Any, batch: Any, batch_idx: int) -> None:
        """Count the correct predictions."""
        self._count(batch)

    def _count(self: Any, batch: Any) -> None:
        if self._scores is not None:
            self._scores.update(batch[0].float(), batch[1])

    def on_validation_epoch_end(self) -> None:
        """Log accuracy and loss."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Log accuracy and loss, also of the baseline sets."""
        self._log("test")

    def _log(self: Any, stage: str) -> None:
        if self._scores is None:
            return
        values = self._scores.compute(lambda value: self.trainer.strategy.reduce(value, reduce_op="sum"))
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()})
        self._scores = None

    def _facts(self: Any) -> Any:
        """Return the datamodule if it has ``mean`` and ``std``, else None."""
        data = getattr(self.trainer, "datamodule", None)
        return data if getattr(data, "mean", None) is not None and getattr(data, "std", None) is not None else None

    def draw(self: Any) -> None:
        """Write the first ten images per class as a picture, one row per class."""
        data = self._facts()
        if data is None or self.in_chans not in (1, 3):
            return
        rows = self.images[:, :10]
        pixels = as_pixels(rows.flatten(0, 1), data.mean, data.std)
        # Enlarge the pixels, as eight of them are hard to see.
        grid = make_grid(pixels, nrow=rows.shape[1], padding=1)[: self.in_chans]
        grid = grid.repeat_interleave(3, 1).repeat_interleave(3, 2)
        folder = Path(self.trainer.default_root_dir, "images")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"epoch_{self.current_epoch + 1:04d}.png"
        write_png(path, grid)
        for logger in self.trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("images", [str(path)], step=self.global_step)
            elif hasattr(logger.experiment, "add_image"):
                logger.experiment.add_image("images", grid, self.global_step)

    def export_set(self: Any, folder: str | Path, data: Any) -> list[Path]:
        """Write the images for use elsewhere; see `save_set`.

        Args:
            folder: An existing folder.
            data: The datamodule, with mean, std and class names.

        Raises:
            InputError: If there are no images yet, the data has no mean and std, or a file exists already.
        """
        if not self.images.any():
            raise InputError("there are no distilled images to export: name a checkpoint with --ckpt_path")
        if getattr(data, "mean", None) is None or getattr(data, "std", None) is None:
            raise InputError("export needs data that says its mean and std, e.g. --data Digits")
        network, args = self._network_args
        facts = {
            "method": type(self.matching).__name__,
            "settings": {
                k: v
                for k, v in vars(self.matching).items()
                if isinstance(v, (int, float, str, list)) and not k.startswith("_")
            },
            "augmentation": None if self.augmentation is None else vars(self.augmentation),
            "init": self.init,
            "network": network,
            "network_args": args,
            "batch_real": self.batch_real,
            "steps": self._step,
            "seed": run_seed(),
        }
        names = [str(name) for name in getattr(data, "class_names", range(self.num_classes))]
        images = self.images.flatten(0, 1)
        return save_set(folder, images, self.labels, mean=data.mean, std=data.std, class_names=names, facts=facts)
