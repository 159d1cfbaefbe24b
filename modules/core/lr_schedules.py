"""Learning-rate schedules defined by shares of the run, so that they fit a run of any length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .errors import InputError
from .reporting import warn


class RunSchedule(LambdaLR):
    """Base class of schedules that depend on the progress of the run, not on the epoch number.

    A recipe calls :meth:`fit_to` before training starts, with the number of epochs or optimizer steps (by its
    ``lr_interval``). A change of ``trainer.max_epochs`` therefore changes the schedule too.

    Args:
        optimizer: The optimizer to schedule.
        warmup: Share of the run, in [0, 1), in which the rate rises linearly from 0; the first step is above 0.
        total: Length of the run in scheduler steps; None lets the recipe set it.
        momenta: For each parameter group, its momentum at height 0 and at height 1; :meth:`height` interpolates
            between them. None keeps the group's momentum. For Adam, momentum is the first beta.

    Raises:
        InputError: If ``warmup`` is outside [0, 1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.0,
        total: int | None = None,
        momenta: Sequence[tuple[float, float] | None] | None = None,
    ) -> None:
        if not 0 <= warmup < 1:
            raise InputError(f"warmup is a share of the run and must lie in [0, 1) but is {warmup}")
        self.warmup = warmup
        self.total = total
        self.momenta = momenta if momenta is not None else [None] * len(optimizer.param_groups)
        super().__init__(optimizer, self._factor)

    def factor(self, progress: float) -> float:
        """Return the multiplier of the base rate; ``progress`` in [0, 1] is the share of the run after warm-up."""
        raise NotImplementedError

    def height(self, step: int) -> float:
        """Return the position between the lowest rate (0) and the highest rate (1); it interpolates the momentum."""
        return 0.0

    def get_lr(self) -> Any:
        """Return the rates of the next step, and set its momentum."""
        self._move_momentum()
        return super().get_lr()

    def _move_momentum(self) -> None:
        height = self.height(self.last_epoch)
        for group, momenta in zip(self.optimizer.param_groups, self.momenta, strict=True):
            if momenta is None:
                continue
            momentum = momenta[0] + (momenta[1] - momenta[0]) * height
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif "momentum" in group:
                group["momentum"] = momentum

    def fit_to(self, total: int) -> None:
        """Set the length of the run in scheduler steps, and update the learning rate."""
        self.total = total
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * self._factor(self.last_epoch)
        self._move_momentum()
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint; if the length of the run has changed, continue with the new length."""
        total, was = self.total, state_dict.get("total")
        super().load_state_dict(state_dict)
        self.total = total
        if total is not None and was is not None and was != total:
            self.fit_to(total)
            rates = ", ".join(f"{rate:.4g}" for rate in dict.fromkeys(self._last_lr))
            warn(
                f"the run that goes on was made for {was} scheduler steps and has {total} now: {type(self).__name__}"
                f" goes on at step {self.last_epoch} as in a run of {total}, with a learning rate of {rates}"
            )

    def _factor(self, step: int) -> float:
        # The base class asks for step 0 when it is built, before a recipe has set the length.
        total = self.total if self.total is not None else max(1, step)
        warmup = self.warmup * total
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return self.factor(min(1.0, (step - warmup) / (total - warmup)))


class CosineSchedule(RunSchedule):
    """Cosine decay from the base rate to ``final`` times the base rate (https://arxiv.org/abs/1608.03983).

    Args:
        optimizer: The optimizer to schedule.
        warmup: Share of the run, in [0, 1), in which the rate rises linearly.
        final: Multiplier of the base rate at the end of the run.
        total: Length of the run in scheduler steps; None lets the recipe set it.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.0, final: float = 0.0, total: int | None = None) -> None:
        self.final = final
        super().__init__(optimizer, warmup=warmup, total=total)

    def factor(self, progress: float) -> float:
        """Return the multiplier of the base rate; ``progress`` is the share of the run after warm-up."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


class MilestoneSchedule(RunSchedule):
    """Step decay: the rate is multiplied by ``gamma`` at each milestone.

    Args:
        optimizer: The optimizer to schedule.
        milestones: Shares of the run, rising, each in (0, 1): ``[0.5, 0.75]`` is epochs 100 and 150 of 200.
        gamma: Multiplier at each milestone.
        warmup: Share of the run, in [0, 1), in which the rate rises linearly; it must end before the first milestone.
        total: Length of the run in scheduler steps; None lets the recipe set it.

    Raises:
        InputError: If ``milestones`` are not rising shares in (0, 1), or the warm-up does not end before the first.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[float],
        gamma: float = 0.1,
        warmup: float = 0.0,
        total: int | None = None,
    ) -> None:
        if list(milestones) != sorted(set(milestones)) or not all(warmup < share < 1 for share in milestones):
            raise InputError(
                "milestones are shares of the run: they must rise and lie between warmup"
                f" ({warmup}) and 1, but are {list(milestones)}"
            )
        self.milestones = milestones
        self.gamma = gamma
        super().__init__(optimizer, warmup=warmup, total=total)

    def factor(self, progress: float) -> float:
        """Return the multiplier of the base rate; ``progress`` is the share of the run after warm-up."""
        share = self.warmup + (1 - self.warmup) * progress
        # A share such as 150/240 matches its step only up to rounding.
        return self.gamma ** sum(share >= milestone - 1e-9 for milestone in self.milestones)


class OneCycleSchedule(RunSchedule):
    """One-cycle schedule: raise the rate to the base rate along half a cosine, then lower it along another.

    The final rate is below the initial rate (https://arxiv.org/abs/1708.07120). Rates and momentum equal
    `torch.optim.lr_scheduler.OneCycleLR` with the base rate as ``max_lr``. Momentum, or Adam's first beta, falls while
    the rate rises. It replaces the optimizer's momentum.

    Args:
        optimizer: The optimizer to schedule; its rate is the highest rate.
        peak: Share of the run, in (0, 1), after which the rate is highest.
        start_divisor: The initial rate is the base rate divided by this number.
        final_divisor: The final rate is the initial rate divided by this number.
        high_momentum: Momentum at the lowest rate. The defaults of both momenta come from `OneCycleLR`.
        low_momentum: Momentum at the highest rate; None leaves momentum unchanged.
        total: Length of the run in scheduler steps; None lets the recipe set it.

    Raises:
        InputError: If ``peak`` is outside (0, 1) or a divisor is below 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        peak: float = 0.3,
        start_divisor: float = 25.0,
        final_divisor: float = 1e4,
        high_momentum: float = 0.95,
        low_momentum: float | None = 0.85,
        total: int | None = None,
    ) -> None:
        if not 0 < peak < 1:
            raise InputError(f"peak is a share of the run and must lie in (0, 1) but is {peak}")
        if min(start_divisor, final_divisor) < 1:
            raise InputError(
                f"start_divisor and final_divisor must be at least 1 but are {start_divisor}, {final_divisor}"
            )
        self.peak = peak
        self.start_divisor = start_divisor
        self.final_divisor = final_divisor
        momenta = None if low_momentum is None else [(high_momentum, low_momentum)] * len(optimizer.param_groups)
        super().__init__(optimizer, total=total, momenta=momenta)

    def height(self, step: int) -> float:
        """Return the position between the lowest rate (0) and the highest rate (1)."""
        total = self.total if self.total is not None else max(2, step)
        top, last = self.peak * total - 1, total - 1
        share = step / max(top, 1) if step <= top else 1 - min(1.0, (step - top) / (last - top))
        return (1 - math.cos(math.pi * share)) / 2

    def _factor(self, step: int) -> float:
        total = self.total if self.total is not None else max(2, step)
        low = 1 / self.start_divisor / (1 if step <= self.peak * total - 1 else self.final_divisor)
        return low + (1 - low) * self.height(step)


class CyclicSchedule(RunSchedule):
    """Triangular schedule: raise the rate linearly from 0 to the base rate, then lower it linearly to 0.

    Rates and momentum equal `torch.optim.lr_scheduler.CyclicLR` with ``base_lr`` 0, the base rate as ``max_lr`` and one
    cycle per run (https://arxiv.org/abs/1506.01186). The code of FGSM-RS and N-FGSM uses it. The first step has rate 0.

    Args:
        optimizer: The optimizer to schedule; its rate is the highest rate.
        peak: Share of the run, in (0, 1), after which the rate is highest.
        low_momentum: Momentum at the highest rate; at rate 0 it is the optimizer's momentum. The default comes from
            `CyclicLR`. None, or an optimizer without momentum, leaves momentum unchanged.
        total: Length of the run in scheduler steps; None lets the recipe set it.

    Raises:
        InputError: If ``peak`` is outside (0, 1).
    """

    def __init__(
        self, optimizer: Optimizer, peak: float = 0.5, low_momentum: float | None = 0.8, total: int | None = None
    ) -> None:
        if not 0 < peak < 1:
            raise InputError(f"peak is a share of the run and must lie in (0, 1) but is {peak}")
        self.peak = peak
        momenta = [
            (group["momentum"], low_momentum) if group.get("momentum") and low_momentum is not None else None
            for group in optimizer.param_groups
        ]
        super().__init__(optimizer, total=total, momenta=momenta)

    def height(self, step: int) -> float:
        """Return the position between the lowest rate (0) and the highest rate (1)."""
        return self._factor(step)

    def _factor(self, step: int) -> float:
        total = self.total if self.total is not None else max(1, step)
        top = self.peak * total
        return step / top if step <= top else max(0.0, (total - step) / (total - top))
