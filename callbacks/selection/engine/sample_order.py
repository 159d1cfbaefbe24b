"""Order of the samples in a batch, from the collate function to the training step."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Subset

from ....modules.core.sampling import isolated_rng

CHECKED_BATCHES = 3
"""Number of batches at the start of a run that are checked for a changed order."""


class SampleOrder:
    """Follows the samples of a loader into its batches.

    A collate function may sort its list in place: batches stay the same, and ``places`` records where every row comes
    from. Any other change of order is detected in the first batches, and ``moved`` names it.

    Args:
        loader: Loader to wrap in place (``collate_fn`` and iterators).
        on_fetch: Called before each batch is fetched.

    Attributes:
        places: For each row of the last batch, its place in the order of the sampler ``(N,)``; None if the orders
            agree.
        moved: The step that changes the order of the samples in an unknown way, for messages; None if there is none.
    """

    def __init__(self, loader: DataLoader, on_fetch: Callable[[], None]) -> None:
        self.places: Tensor | None = None
        self.moved: str | None = None
        self._on_fetch = on_fetch
        self._fetched = 0
        self._sent: list[list[Hashable]] | None = None
        self._collate = loader.collate_fn = _OrderedCollate(loader.collate_fn, loader.dataset)
        make = loader._get_iterator

        def get_iterator() -> Any:
            iterator = make()
            kind = type(iterator)
            iterator.__class__ = type(kind.__name__, (_Receives, kind), {"_owner": self})
            return iterator

        loader._get_iterator = get_iterator  # type: ignore[method-assign]

    @property
    def checking(self) -> bool:
        """True while the first batches of a run are checked."""
        return self._fetched <= CHECKED_BATCHES

    def receive(self, batch: Any) -> Any:
        """Record the order of a fetched batch, and return the batch as the user's collate function made it."""
        self.places = None
        self._fetched += 1
        if isinstance(batch, _Ordered):
            self.moved = batch.moved or self.moved
            batch, self.places = batch.batch, batch.places
        if self.checking:
            self._sent = _rows(batch)
        else:
            # Workers of later epochs start from a copy of this object.
            self._collate.checks, self._sent = 0, None
        return batch

    def check_arrival(self, batch: Any, through: str) -> None:
        """Compare one of the first batches with the batch that the loader returned.

        Args:
            batch: The batch as it is now.
            through: The steps that the batch has passed since, for messages.
        """
        if self._sent is not None and self.moved is None:
            arrived = _rows(batch)
            if _is_moved([(sent, found) for found in arrived for sent in self._sent]):
                self.moved = through


class _Receives:
    """Mixin for an iterator of a `DataLoader`."""

    _owner: SampleOrder

    def _next_data(self) -> Any:
        self._owner._on_fetch()
        return self._owner.receive(super()._next_data())  # type: ignore[misc]


class _Ordered(NamedTuple):
    """A batch in another order than the sampler's, sent from a worker."""

    batch: Any
    places: Tensor | None
    moved: str | None


class _OrderedCollate:
    """A collate function that also reports the new places of the samples if the order changed."""

    def __init__(self, collate: Callable[[list], Any], dataset: Any) -> None:
        self.collate = collate
        self.dataset = dataset
        self.checks = CHECKED_BATCHES

    def __call__(self, samples: list) -> Any:
        moved = None
        if self.checks:
            # Check in the process that reads, as a data set may open its files at the first sample.
            if self.checks == CHECKED_BATCHES and _reads_moved(self.dataset):
                moved = "the data set's __getitems__"
            elif self._moves(samples):
                moved = "the collate function"
            self.checks -= 1
        before = list(samples)
        batch = self.collate(samples)
        places = _places(before, samples)
        return batch if places is None and moved is None else _Ordered(batch, places, moved)

    def _moves(self, samples: list) -> bool:
        """Return whether reversed samples fail to give the reversed batch."""
        try:
            with isolated_rng(0):
                forward, backward = (
                    self._undone(copy.deepcopy(part)) for part in (samples[:_TRIED], samples[:_TRIED][::-1])
                )
        except Exception:  # a collate function that cannot be called twice: its order is unknown
            return False
        if len(forward) != len(backward):
            return False
        # A collate function may replace dropped samples, and by different rows in the reversed batch. So compare as
        # sets.
        pairs = [(rows, back[::-1]) for rows, back in zip(forward, backward, strict=True)]
        return _is_moved(pairs, alike=set)

    def _undone(self, samples: list) -> list[list[Hashable]]:
        """Return the rows of a batch in the order of its samples, undoing an in-place sort."""
        before = list(samples)
        found = [rows for rows in _rows(self.collate(samples)) if len(rows) == len(before)]
        places = _places(before, samples)
        if places is None:
            return found
        places = places.argsort()
        return [[rows[place] for place in places.tolist()] for rows in found]


# Number of samples collated, and number of samples read, to test their order.
_TRIED, _READ = 32, 8


def _places(before: list, after: Any) -> Tensor | None:
    """Return the former places of a list's objects after an in-place sort; None if it was not sorted."""
    if not isinstance(after, list) or all(map(lambda old, new: old is new, before, after)):
        return None
    place = {id(sample): number for number, sample in enumerate(before)}
    found = [place.get(id(sample)) for sample in after]
    if None in found or sorted(found) != list(range(len(before))):  # type: ignore[type-var]
        return None
    return torch.tensor(found)


def _reads_moved(dataset: Any) -> bool:
    """Return whether ``__getitems__`` of a data set returns samples in another order than their indices."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    read: Callable[[list[int]], list] | None = getattr(dataset, "__getitems__", None)
    if read is None:
        return False
    indices = list(range(min(len(dataset), _READ)))
    try:
        with isolated_rng(0):
            forward, backward = _fields(read(indices)), _fields(read(indices[::-1]))
    except Exception:  # samples that cannot be compared: their order is unknown
        return False
    return _is_moved([(rows, back[::-1]) for rows, back in zip(forward, backward, strict=False)])


def _fields(samples: list) -> list[list[Hashable]]:
    """Return the samples as bytes, one list per field."""
    parts = [
        list(sample.values())
        if isinstance(sample, Mapping)
        else sample
        if isinstance(sample, (tuple, list))
        else [sample]
        for sample in samples
    ]
    return [
        [_bytes(field) if isinstance(field, Tensor) else pickle.dumps(field) for field in fields]
        for fields in zip(*parts, strict=True)
    ]


def _is_moved(
    pairs: list[tuple[list[Hashable], list[Hashable]]], *, alike: Callable[[list[Hashable]], Any] = Counter
) -> bool:
    """Return whether rows come in another order than expected. The field with the most distinct rows decides.

    Args:
        pairs: Expected rows and found rows, per field.
        alike: Maps rows to a value that is equal for the same rows in any order.
    """
    best, moved = (1, False), False
    for expected, found in pairs:
        if len(expected) != len(found):
            continue
        kept = expected == found
        if kept or alike(expected) == alike(found):
            rank = (len(set(found)), kept)
            if rank > best:
                best, moved = rank, not kept
    return moved


def _rows(batch: Any) -> list[list[Hashable]]:
    """Return the hashes of all rows, for every part of a batch that has rows."""
    if isinstance(batch, (PackedSequence, str, bytes)):
        return []
    if isinstance(batch, Tensor):
        return [_hashes(batch)] if batch.ndim and len(batch) > 1 and not _is_arrangement(batch) else []
    if isinstance(batch, np.ndarray):
        return _rows(torch.from_numpy(batch)) if batch.dtype.kind in "biuf" else []
    if isinstance(batch, Mapping):
        return [rows for value in batch.values() for rows in _rows(value)]
    if not isinstance(batch, Sequence):
        return []
    if batch and all(isinstance(value, (str, int, float)) for value in batch):
        return [list(batch)]
    found = [rows for value in batch for rows in _rows(value)]
    fields = all(isinstance(value, Tensor) and value.shape[:1] == (len(batch),) for value in batch)
    if len(batch) > 1 and not fields and all(isinstance(value, Tensor) for value in batch):
        found.append([hash(_bytes(value)) for value in batch])
    return found


def _is_arrangement(values: Tensor) -> bool:
    """Return whether values ``(N,)`` are a permutation, such as an `argsort` result, and not data."""
    if values.ndim != 1 or values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        return False
    return bool((values.sort().values == torch.arange(len(values), device=values.device)).all())


def _hashes(values: Tensor) -> list[Hashable]:
    return [hash(_bytes(row)) for row in values.detach().cpu()]


def _bytes(values: Tensor) -> bytes:
    return values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
