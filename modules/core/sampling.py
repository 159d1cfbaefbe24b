"""Order and choice of samples as pure functions of a seed, in one process or many, resumed or not."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from enum import IntEnum, auto

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler


class EpochSampler(DistributedSampler):
    """Indices in an order that depends on ``(seed, epoch)`` alone.

    It differs from `torch.utils.data.RandomSampler` in three ways a recipe needs: the order does not depend on the
    global generator, W processes together read the same joint batches as one process with a W times larger batch,
    and a run resumed in the middle of an epoch goes on with the samples it has not yet seen (:meth:`resume_at`).
    It is a `DistributedSampler`, so Lightning leaves it alone and calls :meth:`set_epoch`, and it tells the data set
    the epoch where that has a ``set_epoch`` of its own. ``__iter__`` is free of side effects.

    Args:
        dataset: A map-style data set.
        seed: Base seed, the same in every process.
        shuffle: False keeps the data set's own order.
        num_replicas: Number of processes.
        rank: Index of this process.
        drop_last: Where the data set does not divide by the number of processes, True drops the rest and False
            repeats the first samples of the epoch.

    Attributes:
        resume: Epoch to start at, and samples of it that this process has read already. A sampler that takes this
            one's place in a loader must go on from there.
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        seed: int = 0,
        shuffle: bool = True,
        num_replicas: int = 1,
        rank: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            dataset,  # type: ignore
            num_replicas=num_replicas,
            rank=rank,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
        )
        self.resume = (0, 0)

    def order(self, epoch: int) -> Tensor:
        """All indices of an epoch, for all processes together, in the order they are read."""
        if not self.shuffle:
            return torch.arange(len(self.dataset))  # type: ignore
        return torch.randperm(len(self.dataset), generator=epoch_generator(self.seed, epoch))  # type: ignore

    def resume_at(self, epoch: int, samples: int) -> None:
        """Start at ``epoch``, leaving out the first ``samples`` that each process has read already."""
        self.resume = (epoch, samples)
        EpochSampler.set_epoch(self, epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration reads."""
        # On resume Lightning can ask for epoch 0 before it has restored its loops, and workers start reading at once.
        self.epoch = max(epoch, self.resume[0])
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(self.epoch)  # type: ignore

    def share(self, order: Tensor) -> Tensor:
        """The part of an epoch's order that this process reads; shorter or longer than a W-th as ``drop_last`` says."""
        total = self.share_size(len(order)) * self.num_replicas
        order = order.repeat(-(-total // max(1, len(order))))[:total] if total > len(order) else order[:total]
        return order[self.rank :: self.num_replicas]

    def share_size(self, size: int) -> int:
        """Samples that each process reads of an epoch of ``size``."""
        return size // self.num_replicas if self.drop_last else -(-size // self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        epoch, samples = self.resume
        mine = self.share(self.order(self.epoch))[samples if self.epoch == epoch else 0 :]
        # In pieces, as a list of Python integers takes many times the memory of the tensor.
        return itertools.chain.from_iterable(piece.tolist() for piece in mine.split(_PIECE))


_PIECE = 1024


def run_seed() -> int:
    """The seed given to `seed_everything`, which Lightning leaves in the environment for every process, or 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


class Stream(IntEnum):
    """Uses of random numbers: the first word of every key, so that no two uses share numbers."""

    ORDER = auto()
    """Order of the training samples."""
    AUGMENTATION = auto()
    """Augmentation of images in memory, a table for each epoch."""
    FILE_AUGMENTATION = auto()
    """Augmentation of an image read from a file."""
    MIXING = auto()
    """Mixup and CutMix."""
    SPLIT = auto()
    """Split of training and validation images."""
    SUBSET = auto()
    """Choice of a subset of the training images."""
    LABEL_NOISE = auto()
    """Wrong labels."""
    SELECTION = auto()
    """Choice of an epoch's samples by a callback."""
    ATTACK = auto()
    """Random starts of an adversarial attack."""
    ROBUSTNESS = auto()
    """AutoAttack."""
    REAL_ORDER = auto()
    """Order in which dataset distillation reads a stranger's loader."""
    REAL_BATCH = auto()
    """Real images of a step of dataset distillation."""
    SYNTHETIC_START = auto()
    """First values of synthetic images."""
    RANDOM_SET = auto()
    """Randomly chosen real images, the baseline of synthetic ones."""
    MATCHING_NETWORK = auto()
    """Weights of a network that synthetic images are matched on."""
    MATCHING_TRAINING = auto()
    """Training of that network between two steps."""
    SIAMESE_AUGMENTATION = auto()
    """Siamese augmentation."""
    EVALUATION_NETWORK = auto()
    """Weights of a network that is trained on synthetic images."""
    EVALUATION_ORDER = auto()
    """Order of the synthetic images in that training."""
    EVALUATION_LAYERS = auto()
    """Dropout and other random layers in that training."""
    CONTRAST_NEGATIVES = auto()
    """Negatives of contrastive distillation."""


def derived_seed(stream: Stream, *words: int) -> int:
    """Return a 32-bit seed mixed from a use and non-negative integers; keys of different lengths differ too."""
    return int(_sequence(stream, words).generate_state(1)[0])


def numpy_generator(stream: Stream, *words: int) -> np.random.Generator:
    """Return numpy's generator for a use and non-negative integers."""
    return np.random.default_rng(_sequence(stream, words))


def epoch_generator(seed: int, epoch: int, stream: Stream = Stream.ORDER) -> torch.Generator:
    """Return torch's generator for a use in one epoch; it shares nothing with the global generator."""
    return torch.Generator().manual_seed(derived_seed(stream, seed, epoch))


def _sequence(stream: Stream, words: tuple[int, ...]) -> np.random.SeedSequence:
    # numpy pads a key with zeros, so the number of words is one of them.
    return np.random.SeedSequence((stream, len(words), *words))


@contextmanager
def isolated_rng(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global generators of python, numpy and torch, and give them back as they were.

    For code that draws from them and cannot be handed a generator.

    Args:
        seed: A 32-bit seed.
        device: Its generator is taken care of beside the CPU's.
    """
    device = torch.device(device)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            random.seed(seed)
            np.random.seed(seed)
            # `torch.manual_seed` would reach every accelerator of the machine.
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                torch.cuda.default_generators[device.index or 0].manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def stratified_choice(labels: Tensor, share: float | int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose some of each class at random.

    Args:
        labels: Class indices, shape ``(N,)``.
        share: A float chooses that share of each class, rounded, at least one; an int that many of each class.
        generator: Source of randomness.

    Returns:
        Indices of the chosen and of the others, both rising.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    # Place of each sample within its class, in random order.
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]
    wanted = (share * counts).round().clamp(min=1) if isinstance(share, float) else torch.full_like(counts, share)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[by_class[place < wanted[labels[by_class]]]] = True
    return chosen.nonzero().flatten(), (~chosen).nonzero().flatten()


def long_tail_choice(labels: Tensor, ratio: float, *, num_classes: int | None = None) -> Tensor:
    """Choose fewer of each class than of the one before: the published long-tailed sets, CIFAR-10-LT among them.

    Of class k stay n_k = int(n_max * (1 / ratio) ** (k / (C - 1))) samples, with n_max the size of the largest class:
    exponential imbalance (https://arxiv.org/abs/1901.05555). Which ones is settled by the rule of LDAM-DRW
    (https://arxiv.org/abs/1906.07413), so that all who follow it train on the same images: one
    ``numpy.random.RandomState(0)`` shuffles the rising indices of one class after the other, in the order of the
    classes, and the first n_k of each stay. A class with fewer samples keeps all it has.

    Args:
        labels: Class indices, shape ``(N,)``.
        ratio: Imbalance factor, the first n_k over the last, at least 1. 1 keeps as many of each class as it has.
        num_classes: C; None is one more than the largest label.

    Returns:
        Indices of the chosen, rising.

    Examples:
        >>> labels = torch.tensor([0] * 100 + [1] * 100 + [2] * 100)
        >>> labels[long_tail_choice(labels, 100)].bincount()
        tensor([100,  10,   1])
    """
    classes = labels.numpy()
    counts = np.bincount(classes, minlength=num_classes or 0)
    source = np.random.RandomState(0)
    chosen = []
    for index in range(len(counts)):
        members = np.flatnonzero(classes == index)
        source.shuffle(members)
        # The product as published, in this order: rounding decides about whole images.
        chosen.append(members[: int(counts.max() * (1 / ratio) ** (index / max(1, len(counts) - 1)))])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def uniform_subset(size: int, keep: int, generator: torch.Generator, *, among: Tensor | None = None) -> Tensor:
    """Mark ``keep`` of ``size`` items at random, each subset being equally likely, without a permutation of all.

    Args:
        size: Number of items.
        keep: Number to mark.
        generator: Source of randomness.
        among: Mark only some of these, bool ``(size,)``; None is all.

    Returns:
        bool, shape ``(size,)``.
    """
    # numpy draws and corrects several times faster than torch on a CPU.
    source = np.random.Generator(np.random.SFC64(int(torch.randint(2**63 - 1, (), generator=generator))))
    allowed = np.True_ if among is None else among.numpy()
    count = size if among is None else int(np.count_nonzero(allowed))
    marked = source.integers(2**16, size=size, dtype=np.uint16) < round(2**16 * keep / max(1, count))
    marked &= allowed
    # Independent draws give about the right number; whichever subset they gave, it was as likely as any of its size,
    # and so it stays if the surplus is taken off, or what is missing is put on, at random.
    surplus = int(np.count_nonzero(marked)) - keep
    pool = np.flatnonzero(marked if surplus > 0 else allowed & ~marked)
    marked[source.choice(pool, abs(surplus), replace=False, shuffle=False)] = surplus < 0
    return torch.from_numpy(marked)


def noisy_labels(labels: Tensor, share: float, num_classes: int, generator: torch.Generator) -> Tensor:
    """Replace a share of the labels by a class drawn uniformly from the others (symmetric label noise).

    Args:
        labels: Class indices, shape ``(N,)``; left as they are.
        share: Share of the labels to replace, in [0, 1].
        num_classes: Number of classes, at least 2.
        generator: Source of randomness.
    """
    labels = labels.clone()
    replaced = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    shift = torch.randint(1, num_classes, (len(replaced),), generator=generator)
    labels[replaced] = (labels[replaced] + shift) % num_classes
    return labels
