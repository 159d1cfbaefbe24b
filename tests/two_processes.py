"""Run a script as both processes of a group and print their exit codes: ``two_processes.py SCRIPT FOLDER``."""

from __future__ import annotations

import os
import runpy
import sys

import lightning_recipes.callbacks
import lightning_recipes.recipes  # noqa: F401


def started(rank: int, script: str) -> int:
    """Fork a process that runs the script and return its number."""
    process = os.fork()
    if process == 0:
        os.environ["LOCAL_RANK"] = str(rank)
        sys.argv = sys.argv[1:]
        runpy.run_path(script, run_name="__main__")
        sys.exit(0)
    return process


if __name__ == "__main__":
    processes = [started(rank, sys.argv[1]) for rank in range(2)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    print(*codes)
