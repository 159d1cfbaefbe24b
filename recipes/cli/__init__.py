"""The command `recipes`. Its front does not import torch."""

from .front import main

__all__ = ["main"]
