"""Errors with a message for the person who started the run.

The command line prints them as one short message; any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class InputError(ValueError):
    """Error for input that cannot be used. The message names the input and a way out. Exit code 2."""


class RunError(RuntimeError):
    """Error for a run that cannot continue. The message says where it stopped and what was saved. Exit code 1."""
