"""Warnings for the person who started a run."""

from __future__ import annotations

import warnings

from torch import distributed


def warn(message: str) -> None:
    """Warn on the first process only.

    Args:
        message: One sentence that names the argument and its value.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank()):
        warnings.warn(message, stacklevel=2)
