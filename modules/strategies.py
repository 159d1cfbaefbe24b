"""Properties of Lightning strategies."""

from __future__ import annotations

from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy, Strategy


def keeps_weights_whole(strategy: Strategy) -> bool:
    """Return whether every process holds all weights and gradients are averaged, as in DDP."""
    whole = isinstance(strategy, (SingleDeviceStrategy, DDPStrategy))
    return whole and not isinstance(strategy, DeepSpeedStrategy)  # a subclass of DDPStrategy that shards weights
