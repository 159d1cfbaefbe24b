"""Errors whose message is written for the person who started the run.

The command line prints them as one short message; any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used: the message names it and says the way out. Exit code 2."""


class RunError(RuntimeError):
    """A run that had started cannot go on: the message says where it stopped and what was kept. Exit code 1."""
