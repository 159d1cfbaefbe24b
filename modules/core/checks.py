"""Refusing arguments that are out of their range, by name and value."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import InputError


def check(valid: bool, name: str, value: object, allowed: str) -> None:
    """Refuse an argument that is not valid.

    Args:
        valid: Whether the value can be used.
        name: Of the argument.
        value: What it is.
        allowed: What it must be, e.g. ``"in [0, 1)"``.

    Raises:
        InputError: If it is not valid.
    """
    if not valid:
        raise InputError(f"{name} must be {allowed} but is {value!r}")


def positive(**values: float | None) -> None:
    """Refuse, with an `InputError`, what is zero, negative, infinite or NaN; None is passed over."""
    for name, value in values.items():
        check(value is None or 0 < value < math.inf, name, value, "positive" if value != math.inf else "finite")


def not_negative(**values: float) -> None:
    """Refuse, with an `InputError`, what is no weight: negative, infinite or NaN."""
    for name, value in values.items():
        check(0 <= value < math.inf, name, value, "at least 0, and finite,")


def at_least(least: int, **values: int | None) -> None:
    """Refuse, with an `InputError`, what is less, infinite or NaN; None is passed over."""
    for name, value in values.items():
        check(value is None or least <= value < math.inf, name, value, f"at least {least}")


def one_of(choices: Sequence[str], **values: str | None) -> None:
    """Refuse, with an `InputError`, what is none of the choices."""
    for name, value in values.items():
        check(value in choices, name, value, " or ".join([", ".join(choices[:-1]), choices[-1]]))
