"""Short errors for input that otherwise only Lightning, torch or timm would reject."""

from __future__ import annotations

import math
import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...modules.core.checks import check
from ...modules.core.errors import InputError
from .parsing import recipe_files
from .parsing.parser import defaults

_PACKAGE = Path(__file__).resolve().parents[2]
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()

# Functions that use a part of the recipe, with the option that chose it. The innermost function counts.
_USED_IN = {
    "create_network": "model.network",
    "forward": "model.network",
    "configure_optimizers": "model.optimizer",
    "lr_scheduler_step": "model.lr_scheduler",
    "optimizer_step": "model.optimizer",
    "restore_optimizers": "model.optimizer",
    "_create_optimizer": "model.optimizer",
}


def check_settings(settings: Any, command: str) -> None:
    """Refuse infinite or NaN numbers, and values that Lightning does not check.

    Args:
        settings: The parsed options.
        command: ``fit``, ``test``, …

    Raises:
        InputError: Names the option and its value.
    """
    for key, value in _not_finite(settings):
        raise InputError(f"{key} must be a finite number but is {value}")
    seed = settings.seed_everything
    valid = isinstance(seed, bool) or seed is None or 0 <= seed < 2**32
    check(valid, "seed_everything", seed, "in [0, 2**32), true or false")
    check(settings.name is None or settings.name.isprintable(), "name", settings.name, "printable, on one line")
    trainer = settings.trainer
    accumulate = trainer.accumulate_grad_batches
    check(accumulate >= 1, "trainer.accumulate_grad_batches", accumulate, "at least 1")
    clip = trainer.gradient_clip_val
    check(clip is None or clip >= 0, "trainer.gradient_clip_val", clip, "at least 0; null does not clip")
    every = trainer.check_val_every_n_epoch
    check(every is None or every >= 1, "trainer.check_val_every_n_epoch", every, "at least 1")
    sanity = trainer.num_sanity_val_steps
    check(sanity is None or sanity >= -1, "trainer.num_sanity_val_steps", sanity, "at least 0, or -1 for all")
    check((trainer.log_every_n_steps or 0) >= 0, "trainer.log_every_n_steps", trainer.log_every_n_steps, "at least 0")
    batches = trainer.limit_train_batches
    if command == "fit" and batches is not None and batches == 0:
        raise InputError("trainer.limit_train_batches 0 leaves nothing to train on: leave it out, or give 1 or more")
    if command == "fit" and trainer.max_steps == 0:
        raise InputError("trainer.max_steps 0 leaves nothing to train: give 1 or more, or -1 for no limit")
    for part in ("val", "test", "predict"):
        if command == {"val": "validate"}.get(part, part) and trainer.get(f"limit_{part}_batches") == 0:
            raise InputError(f"trainer.limit_{part}_batches 0 leaves nothing to {command}: leave it out")


def _not_finite(node: Any, key: str = "", owner: str = "") -> Iterator[tuple[str, float]]:
    """Return options and values of all numbers that are infinite or NaN, except defaults."""
    if isinstance(node, float) and not math.isfinite(node):
        if node != defaults(owner).get(key.rpartition(".")[2]):
            yield recipe_files.plain(key), node
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from _not_finite(item, key, owner)
    elif isinstance(node, dict) or hasattr(node, "as_dict"):
        entries = node if isinstance(node, dict) else vars(node)
        inner = str(entries.get("class_path") or owner)
        for name, value in entries.items():
            yield from _not_finite(value, f"{key}.{name}".lstrip("."), inner)


def explained(error: BaseException, *, has_trained: bool = False) -> InputError | None:
    """Return a one-line error for an exception raised by an installed package, without user code in its trace.

    Args:
        error: The error. A bug of ours has no such line and keeps its trace. With ``RECIPES_TRACEBACK=1`` in the
            environment all errors keep their trace.
        has_trained: Whether a training step was finished; after it only a schedule can still be invalid.
    """
    while str(error).startswith("Does not validate against any of the Union") and error.__cause__:
        error = error.__cause__
    if isinstance(error, InputError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, Exception) or os.environ.get("RECIPES_TRACEBACK") or not frames:
        return None
    files = [Path(frame.filename).resolve() for frame in frames]
    if any(not _is_known(file) for file in files) or _is_ours(files[-1]):
        return None
    if has_trained and _option(frames) != "model.lr_scheduler: ":
        return None
    name = type(error).__name__
    text = " ".join(str(error).split())
    if name == "UsageError" or "wandb" in type(error).__module__:
        return InputError(
            f"wandb cannot start ({text[:150]}): run `wandb login`, or set WANDB_MODE=offline to log to this machine"
        )
    if _is_offline(error):
        return InputError(
            f"{_option(frames)}something must be fetched and there is no connection ({name}):"
            f" {text[:120].rstrip(' .')}. Give a file or set pretrained to false"
        )
    if isinstance(error, KeyError) and _option(frames) == "model.optimizer: ":
        return InputError(
            f"model.optimizer cannot go on from the checkpoint, whose optimizer is of another class (no {text}):"
            " keep the optimizer of the run"
        )
    return InputError(f"{_option(frames)}{name}: {text[:300]}")


def _is_known(file: Path) -> bool:
    """Return whether a file is ours, from an installed package, or not a file at all (compiled code)."""
    installed = bool(_INSTALLED & set(file.parts)) or file.is_relative_to(_STANDARD)
    return installed or _is_ours(file) or not file.is_file() or file.name == "recipes"


def _is_ours(file: Path) -> bool:
    """Return whether a file belongs to this project; in a checkout, its folder may contain the environment."""
    return file.is_relative_to(_PACKAGE) and not _INSTALLED & set(file.relative_to(_PACKAGE).parts)


_INSTALLED = {"site-packages", "dist-packages"}


def _option(frames: traceback.StackSummary) -> str:
    found = [_USED_IN[frame.name] for frame in frames if frame.name in _USED_IN]
    if any(Path(frame.filename).stem in ("lr_scheduler", "lr_schedules") for frame in frames):
        found.append("model.lr_scheduler")
    return f"{found[-1]}: " if found else ""


def _is_offline(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, is an unreachable host."""
    while error is not None:
        if isinstance(error, ConnectionError) or type(error).__name__ in (
            *("ConnectError", "ConnectionError", "URLError", "ConnectTimeout", "MaxRetryError", "ProxyError"),
            *("LocalEntryNotFoundError", "OfflineModeIsEnabled", "gaierror"),
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
