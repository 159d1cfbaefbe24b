"""Join distilled sets and choose classes, e.g. for continual learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..augmentation.batches import normalize
from ..core.errors import InputError

Set = tuple[Tensor, Tensor, Mapping[str, Any]]
"""Images, labels and metadata, as `load_set` returns them."""


def choose_classes(given: Set, classes: Sequence[int | str]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return the images of some classes, with labels 0, 1, … in the given order.

    Args:
        given: A set from `load_set`.
        classes: Classes to keep, by index or by name.

    Returns:
        A set that `save_set` accepts: images, labels, and metadata with the remaining class names.

    Raises:
        InputError: If a class is given twice or does not exist.
    """
    images, labels, facts = given
    chosen = class_indices(classes, facts["class_names"])
    parts = [images[labels == label] for label in chosen]
    numbered = torch.arange(len(chosen)).repeat_interleave(torch.tensor([len(part) for part in parts]))
    return torch.cat(parts), numbered, {**facts, "class_names": [facts["class_names"][label] for label in chosen]}


def join_sets(sets: Sequence[Set]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Join several sets, sorted by class; classes with the same name are merged.

    Classes are in order of first appearance. All images are normalized with the statistics of the first set.

    Args:
        sets: Sets from `load_set`.

    Returns:
        Images, labels, and metadata with mean, std and class names. `save_set` accepts them if all classes have the
        same number of images.

    Raises:
        InputError: If there are no sets, or their images differ in shape.
    """
    if not sets:
        raise InputError("sets must be at least one set of load_set")
    _, _, first = sets[0]
    names = list(dict.fromkeys(name for _, _, facts in sets for name in facts["class_names"]))
    shapes = {tuple(images.shape[1:]) for images, _, _ in sets}
    if len(shapes) > 1:
        raise InputError(f"sets must have images of one shape but have {', '.join(map(str, sorted(shapes)))}")
    all_images, all_labels = [], []
    for images, labels, facts in sets:
        if (facts["mean"], facts["std"]) != (first["mean"], first["std"]):
            scale, offset = (torch.tensor(facts[name]).view(-1, 1, 1) for name in ("std", "mean"))
            images = normalize(images * scale + offset, first["mean"], first["std"])
        all_images.append(images)
        all_labels.append(torch.tensor([names.index(name) for name in facts["class_names"]])[labels])
    labels = torch.cat(all_labels)
    order = labels.argsort(stable=True)
    facts = {"mean": first["mean"], "std": first["std"], "class_names": names}
    return torch.cat(all_images)[order], labels[order], facts


def class_indices(classes: Sequence[int | str], class_names: Sequence[str]) -> list[int]:
    """Return the indices of classes given by name or by index.

    An integer is an index if it is in range, otherwise the name of a class.

    Raises:
        InputError: If there are no classes, a class is given twice, or it does not exist.
    """
    names = list(class_names)
    found = []
    for one in classes:
        if str(one) in names and not (isinstance(one, int) and 0 <= one < len(names)):
            found.append(names.index(str(one)))
        elif isinstance(one, int) and 0 <= one < len(names):
            found.append(one)
        else:
            raise InputError(f"classes must be some of {', '.join(names)}, or indices of them, but hold {one!r}")
    if not found or len(set(found)) < len(found):
        raise InputError(f"classes must be different ones, and at least one, but are {list(classes)}")
    return found
