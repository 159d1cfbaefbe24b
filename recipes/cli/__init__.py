"""The command `recipes`. Its front imports no torch."""

from .front import main

__all__ = ["main"]
