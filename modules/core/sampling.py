"""Order and choice of samples as pure functions of a seed, for any number of processes and for resumed runs."""

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
    """Sampler with an order that depends only on ``(seed, epoch)``.

    It differs from `torch.utils.data.RandomSampler` in three ways. The order does not depend on the global generator.
    W processes together read the same joint batches as one process with a batch W times as large. A run resumed within
    an epoch continues with the samples it has not read yet (:meth:`resume_at`).

    It is a `DistributedSampler`, so Lightning does not replace it and calls :meth:`set_epoch`. If the data set has a
    ``set_epoch`` method, the sampler calls it too. ``__iter__`` has no side effects.

    Args:
        dataset: A map-style data set.
        seed: Base seed, the same in every process.
        shuffle: False keeps the order of the data set.
        num_replicas: Number of processes.
        rank: Index of this process.
        drop_last: Applies if the data set does not divide by the number of processes: True drops the remainder,
            False repeats the first samples of the epoch.

    Attributes:
        resume: Epoch to start at, and the number of its samples that this process has already read. A sampler that
            replaces this one in a loader must continue there.
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
        """Return all indices of an epoch, for all processes together, in reading order."""
        if not self.shuffle:
            return torch.arange(len(self.dataset))  # type: ignore
        return torch.randperm(len(self.dataset), generator=epoch_generator(self.seed, epoch))  # type: ignore

    def resume_at(self, epoch: int, samples: int) -> None:
        """Start at ``epoch`` and skip the first ``samples``, which every process has already read."""
        self.resume = (epoch, samples)
        EpochSampler.set_epoch(self, epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration reads."""
        # On resume, Lightning may ask for epoch 0 before it restores its loops, and workers start to read at once.
        self.epoch = max(epoch, self.resume[0])
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(self.epoch)  # type: ignore

    def share(self, order: Tensor) -> Tensor:
        """Return the part of an epoch's order that this process reads, rounded by ``drop_last``."""
        total = self.share_size(len(order)) * self.num_replicas
        order = order.repeat(-(-total // max(1, len(order))))[:total] if total > len(order) else order[:total]
        return order[self.rank :: self.num_replicas]

    def share_size(self, size: int) -> int:
        """Return the number of samples that each process reads from an epoch of ``size``."""
        return size // self.num_replicas if self.drop_last else -(-size // self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        epoch, samples = self.resume
        mine = self.share(self.order(self.epoch))[samples if self.epoch == epoch else 0 :]
        # In pieces: a list of Python integers takes many times the memory of the tensor.
        return itertools.chain.from_iterable(piece.tolist() for piece in mine.split(_PIECE))


_PIECE = 1024


def run_seed() -> int:
    """Return the seed given to `seed_everything`, or 0. Lightning stores it in the environment of every process."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


class Stream(IntEnum):
    """Uses of random numbers. The use is the first word of every key, so two uses never share random numbers."""

    ORDER = auto()
    """Order of the training samples."""
    AUGMENTATION = auto()
    """Augmentation of images in memory, one table per epoch."""
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
    """Order in which dataset distillation reads a user's data loader."""
    REAL_BATCH = auto()
    """Real images in a step of dataset distillation."""
    SYNTHETIC_START = auto()
    """Initial values of synthetic images."""
    RANDOM_SET = auto()
    """Randomly chosen real images, the baseline of dataset distillation."""
    MATCHING_NETWORK = auto()
    """Weights of a network used to match synthetic images."""
    MATCHING_TRAINING = auto()
    """Training of that network between two steps."""
    SIAMESE_AUGMENTATION = auto()
    """Siamese augmentation."""
    EVALUATION_NETWORK = auto()
    """Weights of a network trained on synthetic images."""
    EVALUATION_ORDER = auto()
    """Order of the synthetic images in that training."""
    EVALUATION_LAYERS = auto()
    """Dropout and other random layers in that training."""
    CONTRAST_NEGATIVES = auto()
    """Negatives of contrastive distillation."""


def derived_seed(stream: Stream, *words: int) -> int:
    """Derive a 32-bit seed from a use and non-negative integers; keys of different lengths differ too."""
    return int(_sequence(stream, words).generate_state(1)[0])


def numpy_generator(stream: Stream, *words: int) -> np.random.Generator:
    """Return a numpy generator for a use and non-negative integers."""
    return np.random.default_rng(_sequence(stream, words))


def epoch_generator(seed: int, epoch: int, stream: Stream = Stream.ORDER) -> torch.Generator:
    """Return a torch generator for a use in one epoch, independent of the global generator."""
    return torch.Generator().manual_seed(derived_seed(stream, seed, epoch))


def _sequence(stream: Stream, words: tuple[int, ...]) -> np.random.SeedSequence:
    # numpy pads a key with zeros, so the key includes the number of words.
    return np.random.SeedSequence((stream, len(words), *words))


@contextmanager
def isolated_rng(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global generators of python, numpy and torch, then restore their previous states.

    It is for code that draws from the global generators and does not accept a generator.

    Args:
        seed: A 32-bit seed.
        device: If it is a CUDA device, its generator is seeded and restored in addition to the CPU's.
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
    """Choose some samples of every class at random.

    Args:
        labels: Class indices, shape ``(N,)``.
        share: A float is the share of every class, rounded, at least one sample. An int is the number per class.
        generator: Source of randomness.

    Returns:
        Indices of the chosen samples and of the others, both rising.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    # Random rank of each sample within its class.
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]
    wanted = (share * counts).round().clamp(min=1) if isinstance(share, float) else torch.full_like(counts, share)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[by_class[place < wanted[labels[by_class]]]] = True
    return chosen.nonzero().flatten(), (~chosen).nonzero().flatten()


def long_tail_choice(labels: Tensor, ratio: float, *, num_classes: int | None = None) -> Tensor:
    """Choose a long-tailed subset: fewer samples of each class than of the class before, as in CIFAR-10-LT.

    Class k keeps n_k = int(n_max * (1 / ratio) ** (k / (C - 1))) samples, where n_max is the size of the largest class.
    This is exponential imbalance (https://arxiv.org/abs/1901.05555). The samples are chosen as in LDAM-DRW
    (https://arxiv.org/abs/1906.07413), so that papers train on the same images. One ``numpy.random.RandomState(0)``
    shuffles the rising indices of the classes, one class after the other, and the first n_k of each class stay. A class
    with fewer than n_k samples keeps all of them.

    Args:
        labels: Class indices, shape ``(N,)``.
        ratio: Imbalance factor, n_k of the first class divided by n_k of the last, at least 1. 1 keeps all samples.
        num_classes: C; None is one more than the largest label.

    Returns:
        Indices of the chosen samples, rising.

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
        # The order of operations as published: rounding decides about whole images.
        chosen.append(members[: int(counts.max() * (1 / ratio) ** (index / max(1, len(counts) - 1)))])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def uniform_subset(size: int, keep: int, generator: torch.Generator, *, among: Tensor | None = None) -> Tensor:
    """Mark ``keep`` of ``size`` items at random, without a permutation of all. Every subset is equally likely.

    Args:
        size: Number of items.
        keep: Number to mark.
        generator: Source of randomness.
        among: Items that may be marked, bool ``(size,)``; None allows all.

    Returns:
        bool, shape ``(size,)``.
    """
    # On a CPU, numpy is several times faster than torch here.
    source = np.random.Generator(np.random.SFC64(int(torch.randint(2**63 - 1, (), generator=generator))))
    allowed = np.True_ if among is None else among.numpy()
    count = size if among is None else int(np.count_nonzero(allowed))
    marked = source.integers(2**16, size=size, dtype=np.uint16) < round(2**16 * keep / max(1, count))
    marked &= allowed
    # Independent draws mark about `keep` items, and all subsets of equal size are equally likely. This stays true if
    # surplus marks are removed, or missing marks added, at random.
    surplus = int(np.count_nonzero(marked)) - keep
    pool = np.flatnonzero(marked if surplus > 0 else allowed & ~marked)
    marked[source.choice(pool, abs(surplus), replace=False, shuffle=False)] = surplus < 0
    return torch.from_numpy(marked)


def noisy_labels(labels: Tensor, share: float, num_classes: int, generator: torch.Generator) -> Tensor:
    """Replace a share of the labels by other classes, drawn uniformly (symmetric label noise).

    Args:
        labels: Class indices, shape ``(N,)``; not changed.
        share: Share of the labels to replace, in [0, 1].
        num_classes: Number of classes, at least 2.
        generator: Source of randomness.
    """
    labels = labels.clone()
    replaced = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    shift = torch.randint(1, num_classes, (len(replaced),), generator=generator)
    labels[replaced] = (labels[replaced] + shift) % num_classes
    return labels
