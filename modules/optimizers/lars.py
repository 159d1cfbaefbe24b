"""LARS as published with InfoBatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from ..core.checks import not_negative, positive


class LARS(Optimizer):
    """SGD with an adaptive learning rate per tensor (https://arxiv.org/abs/1708.03888), as in the code of InfoBatch.

    With weight w, gradient g, weight decay d, trust coefficient c and momentum m:
    ``r = c |w| / (|g| + d |w|)``, ``v = m v + clamp(g + d w)``, ``w = w - lr r v``. The ratio r is at most 50 and is
    applied after the momentum. timm's ``Lars`` applies it before, and has no clamp. r is 1 if |w| or |g| is 0.

    Args:
        params: Parameters or groups. A group with ``adapt: false`` has ratio 1 and no weight decay.
        lr: Learning rate.
        momentum: m, at least 0.
        weight_decay: d, at least 0.
        trust_coefficient: c.
        largest_ratio: Upper limit of r.
        largest_gradient: Largest absolute value of each element of g + d w.

    Raises:
        InputError: If a number is out of its range.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        largest_ratio: float = 50.0,
        largest_gradient: float = 10.0,
    ) -> None:
        not_negative(lr=lr, momentum=momentum, weight_decay=weight_decay)
        positive(trust_coefficient=trust_coefficient, largest_ratio=largest_ratio, largest_gradient=largest_gradient)
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "adapt": True}
        defaults |= {"trust_coefficient": trust_coefficient, "largest_ratio": largest_ratio}
        super().__init__(params, {**defaults, "largest_gradient": largest_gradient})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step, after the closure if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            decay = group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                gradient, rate = weight.grad, group["lr"]
                if group["adapt"]:
                    size, slope = weight.norm(), gradient.norm()
                    ratio = group["trust_coefficient"] * size / (slope + decay * size)
                    rate = rate * torch.where((size > 0) & (slope > 0), ratio, 1.0).clamp(max=group["largest_ratio"])
                    gradient = gradient.add(weight, alpha=decay)
                gradient = gradient.clamp(-group["largest_gradient"], group["largest_gradient"])
                if group["momentum"]:
                    state = self.state[weight]
                    if "momentum_buffer" in state:
                        gradient = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
                    state["momentum_buffer"] = gradient
                weight.sub_(gradient * rate)
        return loss
