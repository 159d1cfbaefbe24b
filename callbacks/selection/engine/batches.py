"""The number of samples in a batch of any type."""

from __future__ import annotations

from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.data import extract_batch_size


def count_samples(batch: Any) -> int:
    """Length of the first tensor in a batch, or 0 where there is none to be found."""
    try:
        return extract_batch_size(batch)
    except MisconfigurationException:
        return 0
