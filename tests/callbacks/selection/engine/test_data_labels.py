"""Class indices are found in the usual kinds of data sets, or taken as given."""

from __future__ import annotations

import pytest
import torch
from lightning_recipes.callbacks import InfoBatch
from lightning_recipes.callbacks.selection.engine.data_labels import labels_of
from lightning_recipes.modules.core.errors import InputError
from torch.utils.data import ConcatDataset, Subset, TensorDataset

IMAGES, CLASSES = torch.rand(4, 2), torch.tensor([2, 0, 1, 1])


class Columns:
    """Answers to a column name as a Hugging Face set does."""

    def __init__(self):
        self.column_names = ["text", "label"]

    def __len__(self):
        return 4

    def __getitem__(self, key):
        return CLASSES.tolist() if key == "label" else [key]


@pytest.mark.parametrize(
    ("dataset", "source", "expected"),
    [
        (TensorDataset(IMAGES, CLASSES), None, [2, 0, 1, 1]),
        (TensorDataset(IMAGES, torch.arange(4), CLASSES), 2, [2, 0, 1, 1]),
        (ConcatDataset([TensorDataset(IMAGES, CLASSES), Columns()]), None, [2, 0, 1, 1] * 2),
        (Subset(TensorDataset(IMAGES, CLASSES), [3, 0]), None, [1, 2]),
        (Columns(), None, [2, 0, 1, 1]),
        (Columns(), "label", [2, 0, 1, 1]),
        (list(range(3)), [0, 1, 0], [0, 1, 0]),
    ],
)
def test_labels_are_found(dataset, source, expected):
    assert labels_of(dataset, source).tolist() == expected


@pytest.mark.parametrize(
    ("dataset", "source"),
    [(TensorDataset(IMAGES, torch.arange(4), CLASSES), None), (Columns(), "text"), ([1, 2], None), ([1, 2], [0])],
)
def test_labels_that_are_not_there_are_refused(dataset, source):
    with pytest.raises(InputError, match="labels"):
        labels_of(dataset, source)


def test_labels_without_per_class_are_refused():
    with pytest.raises(InputError, match="per_class=True"):
        InfoBatch(labels="label")
