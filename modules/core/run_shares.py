"""Points of a run, given as a share of its length or in epochs."""

from __future__ import annotations

import math
import warnings

from .checks import check


def check_epochs(**values: int | float | None) -> None:
    """Raise an error for a value that is no point of a run.

    Args:
        **values: A share of the run (a float in [0, 1]), a number of epochs (an int, at least 0), or None.

    Raises:
        InputError: If a value is something else.
    """
    for name, value in values.items():
        if value is not None:
            valid = 0 <= value <= 1 if isinstance(value, float) else value >= 0
            check(valid, name, value, "at least 0, and a share of the run up to 1.0 or a whole number of epochs,")


def in_epochs(value: int | float, run_epochs: int | None) -> int:
    """Convert a share of a run to epochs.

    The share s of N epochs is ``floor(s N)`` epochs. A share below 1 therefore ends before the last epoch.

    Args:
        value: A share (float) or a number of epochs (int).
        run_epochs: Length of the run; None, outside a run, turns every share into 0.

    Examples:
        >>> in_epochs(1 / 12, 240), in_epochs(20, 240)
        (20, 20)
    """
    if not isinstance(value, float):
        return value
    # A share such as 20/240 matches its epoch only up to rounding.
    return math.floor((value + 1e-9) * run_epochs) if run_epochs else 0


def warn_if_unreached(
    value: int | float | None, run_epochs: int | None, *, name: str, effect: str, spare: int = 0
) -> None:
    """Warn if the run has fewer epochs than the value.

    Args:
        value: A share (float), a number of epochs (int) or None. A share is always reached.
        run_epochs: Length of the run; None is unlimited.
        name: Name of the argument.
        effect: Consequence for the run, for the message.
        spare: Number of epochs that must follow.
    """
    if isinstance(value, int) and run_epochs is not None and value + spare > run_epochs:
        warnings.warn(
            f"{name}={value} is never reached in a run of {run_epochs} epochs, so {effect}: give a share of the run,"
            f" e.g. {name} 0.5",
            stacklevel=2,
        )
