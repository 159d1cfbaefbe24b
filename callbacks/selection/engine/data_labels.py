"""Class labels of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from ....modules.core.errors import InputError


def labels_of(dataset: Any, source: str | int | Sequence[int] | None = None) -> Tensor:
    """Return the class of every sample, without reading samples.

    `Subset` and `ConcatDataset` are searched too.

    Args:
        dataset: A map-style data set.
        source: Name of an attribute or column (Hugging Face), number of the tensor in a `TensorDataset`, or the classes
            themselves ``(N,)``. None looks for ``labels``, ``targets``, ``label``, and in a `TensorDataset` for the
            only tensor of class indices.

    Returns:
        Class indices ``(N,)``.

    Raises:
        InputError: If there are no class indices.
    """
    if source is not None and not isinstance(source, (str, int)):
        found = _class_indices(source, len(dataset))
        if found is None:
            raise InputError(f"labels must be one class index for each of {len(dataset)} samples, from 0")
        return found
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset, source)[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        return torch.cat([labels_of(part, source) for part in dataset.datasets])
    for values in _candidates(dataset, source):
        if (found := _class_indices(values, len(dataset))) is not None:
            return found
    asked = "no labels or targets that are" if source is None else f"nothing at labels={source!r} that is"
    raise InputError(
        f"the class of each training sample is needed, but {type(dataset).__name__} has {asked} class indices (N,): add"
        " them, or give the argument labels: a name, the number of a tensor, or a list of class indices"
    )


def _candidates(dataset: Any, source: str | int | None) -> list[Any]:
    """Return the values that may be class indices."""
    if isinstance(dataset, TensorDataset):
        if isinstance(source, int):
            return list(dataset.tensors[source : source + 1])
        whole = [values for values in dataset.tensors if values.ndim == 1 and not values.is_floating_point()]
        return whole if len(whole) == 1 and source is None else []
    found = []
    columns = getattr(dataset, "column_names", None)
    for name in ("labels", "targets", "label") if source is None else (source,):
        values = getattr(dataset, str(name), None)
        if values is None and isinstance(columns, list) and name in columns:
            values = dataset[name][:]
        found.append(values)
    return found


def _class_indices(values: Any, size: int) -> Tensor | None:
    with suppress(TypeError, ValueError, RuntimeError):
        if values is not None and len(values) == size:
            labels = torch.as_tensor(values)
            if labels.ndim == 1 and not labels.is_floating_point() and labels.min() >= 0:
                return labels.long()
    return None
