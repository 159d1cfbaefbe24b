"""Range checks of arguments; the errors name the argument and its value."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import InputError


def check(valid: bool, name: str, value: object, allowed: str) -> None:
    """Raise an error if an argument is not valid.

    Args:
        valid: True if the value can be used.
        name: Name of the argument.
        value: Value of the argument.
        allowed: Description of the valid values, e.g. ``"in [0, 1)"``.

    Raises:
        InputError: If ``valid`` is False.
    """
    if not valid:
        raise InputError(f"{name} must be {allowed} but is {value!r}")


def positive(**values: float | None) -> None:
    """Raise an `InputError` for a value that is zero, negative, infinite or NaN; None is allowed."""
    for name, value in values.items():
        check(value is None or 0 < value < math.inf, name, value, "positive" if value != math.inf else "finite")


def not_negative(**values: float) -> None:
    """Raise an `InputError` for a value that is negative, infinite or NaN."""
    for name, value in values.items():
        check(0 <= value < math.inf, name, value, "at least 0, and finite,")


def at_least(least: int, **values: int | None) -> None:
    """Raise an `InputError` for a value that is below ``least``, infinite or NaN; None is allowed."""
    for name, value in values.items():
        check(value is None or least <= value < math.inf, name, value, f"at least {least}")


def one_of(choices: Sequence[str], **values: str | None) -> None:
    """Raise an `InputError` for a value that is not among the choices."""
    for name, value in values.items():
        check(value in choices, name, value, " or ".join([", ".join(choices[:-1]), choices[-1]]))
