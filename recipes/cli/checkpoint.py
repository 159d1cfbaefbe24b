"""Checks of a checkpoint before a run depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from ...modules.core.checks import check
from ...modules.core.errors import InputError


def check_checkpoint(path: str, model: LightningModule) -> None:
    """Check that a checkpoint can be read and fits the model.

    Raises:
        InputError: If the file is missing, is not a checkpoint, or has the weights of another network.
    """
    if path.startswith("registry:") or "://" in path:
        return
    if path in ("hpc", "best", "last") and not Path(path).exists():
        raise InputError(
            f"ckpt_path {path} means nothing before a run: name the file, or go on with a run by --resume --run_dir RUN"
        )
    if not Path(path).is_file():
        beside = sorted(str(file) for file in Path(path).parent.glob("*.ckpt"))
        raise InputError(f"ckpt_path {path} is not a file" + (f"; there is {', '.join(beside[:3])}" if beside else ""))
    try:
        # Memory-mapped, as only names and shapes are read.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:100]
        raise InputError(
            f"ckpt_path {path} cannot be read as a checkpoint ({type(error).__name__}: {reason}):"
            " take another one, e.g. last.ckpt of the same run"
        ) from error
    if is_overridden("configure_model", model) or not model.strict_loading:
        return
    own = model.state_dict()
    if any(map(is_lazy, own.values())):
        return
    # `setup` may add layers. Lightning then reports missing weights itself.
    extra = [] if is_overridden("setup", model) else [name for name in weights if name not in own]
    differing = [
        f"{name} {_shape(weights, name)} in the checkpoint, {_shape(own, name)} in the model"
        for name in [*own, *extra]
        if _shape(own, name) != _shape(weights, name)
    ]
    if differing:
        raise InputError(
            f"ckpt_path {path} belongs to another network: {len(differing)} of {len(own)} weights differ, the first"
            f" is {differing[0]}. Use the recipe.yaml beside the checkpoint's folder."
        )


def check_momentum(optimizers: Sequence[Optimizer]) -> None:
    """Refuse a momentum that torch accepts but that makes every step larger than the last.

    Raises:
        InputError: If a momentum is outside [0, 1).
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            momentum = group.get("momentum", 0)
            check(0 <= momentum < 1, f"model.optimizer.momentum of {type(optimizer).__name__}", momentum, "in [0, 1)")


def _shape(weights: dict[str, torch.Tensor], name: str) -> str:
    return str(tuple(weights[name].shape)) if name in weights else "missing"
