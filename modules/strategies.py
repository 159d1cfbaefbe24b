"""What a strategy does with a module's weights."""

from __future__ import annotations

from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy, Strategy


def keeps_weights_whole(strategy: Strategy) -> bool:
    """Whether each process has all weights, and gradients are averaged as DDP does it."""
    whole = isinstance(strategy, (SingleDeviceStrategy, DDPStrategy))
    return whole and not isinstance(strategy, DeepSpeedStrategy)  # which is a kind of DDP by inheritance only
