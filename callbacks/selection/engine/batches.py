"""Size of a batch of any structure."""

from __future__ import annotations

from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.data import extract_batch_size


def count_samples(batch: Any) -> int:
    """Return the length of the first tensor in a batch, or 0 if it contains none."""
    try:
        return extract_batch_size(batch)
    except MisconfigurationException:
        return 0
