"""`recipes fit` as a function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...modules.core.errors import RunError


def train(*recipes: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Train like ``recipes fit -c RECIPE …``, with a run folder, and return the run's figures.

    Args:
        recipes: Recipes and overlays: shipped names or YAML files, merged from left to right.
        options: Options of the command line by their dotted names, e.g. ``{"trainer.max_epochs": 3}``.

    Returns:
        The figures of ``summary.json``, such as ``best val/accuracy`` and ``best checkpoint``, and ``run folder``. For
        a run that writes nothing, such as ``trainer.fast_dev_run``, the last logged values.

    Raises:
        InputError: If a recipe or an option is invalid.
        RunError: If the run failed after its start, or a signal ended it.
    """
    from .trainer_cli import completed

    words = [word for name in recipes for word in ("-c", name)]
    words += [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in (options or {}).items()
    ]
    code, cli = completed(["fit", *words])
    if code:
        raise RunError(f"the run in {cli.run_dir} was ended by a signal; it can go on from its last checkpoint")
    if cli.run_dir is None:
        return {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    summary = cli.run_dir / "summary.json"
    figures = json.loads(summary.read_text()) if summary.exists() else {}
    return {**figures, "run folder": str(cli.run_dir)}
