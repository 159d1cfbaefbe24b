"""Learning-rate schedules given as shares of the run, so that they fit whatever length it has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .errors import InputError
from .reporting import warn


class RunSchedule(LambdaLR):
    """Base of schedules that know how far the run is and not which epoch it is in.

    A recipe calls :meth:`fit_to` with the number of epochs (or optimizer steps, by its ``lr_interval``) before
    training starts, so changing ``trainer.max_epochs`` changes the schedule with it.

    Args:
        optimizer: The optimizer whose learning rate is scheduled.
        warmup: Share of the run, in [0, 1), over which the rate rises linearly from 0; its first step is not 0.
        total: Length of the run in scheduler steps; None lets the recipe fill it in.
        momenta: Momentum of each group at height 0 and at height 1, which :meth:`height` moves between; a group of None
            keeps its own. Adam's first beta is a momentum too.

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
        """The base rate's multiplier after warm-up; ``progress`` runs from 0 to 1 over the rest of the run."""
        raise NotImplementedError

    def height(self, step: int) -> float:
        """Learning rate between its lowest (0) and highest (1) value; momentum moves in the opposite direction."""
        return 0.0

    def get_lr(self) -> Any:
        """The rates of the next step; the momentum of that step is set with them."""
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
        """Set the length of the run, in scheduler steps, and the learning rate that follows from it."""
        self.total = total
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * self._factor(self.last_epoch)
        self._move_momentum()
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint; a run that has become longer or shorter goes on as one of its new length."""
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
        # The base class asks for step 0 when it is built, before a recipe has filled in the length.
        total = self.total if self.total is not None else max(1, step)
        warmup = self.warmup * total
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return self.factor(min(1.0, (step - warmup) / (total - warmup)))


class CosineSchedule(RunSchedule):
    """Half a cosine from the base rate down to ``final`` times it (https://arxiv.org/abs/1608.03983).

    Args:
        optimizer: The optimizer whose learning rate is scheduled.
        warmup: Share of the run, in [0, 1), over which the rate rises linearly.
        final: Multiplier of the base rate at the end of the run.
        total: Length of the run in scheduler steps; None lets the recipe fill it in.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.0, final: float = 0.0, total: int | None = None) -> None:
        self.final = final
        super().__init__(optimizer, warmup=warmup, total=total)

    def factor(self, progress: float) -> float:
        """The base rate's multiplier at a share of the run after warm-up."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


class MilestoneSchedule(RunSchedule):
    """The base rate times ``gamma`` at each milestone.

    Args:
        optimizer: The optimizer whose learning rate is scheduled.
        milestones: Shares of the run, rising, each in (0, 1): ``[0.5, 0.75]`` is epochs 100 and 150 of 200.
        gamma: Multiplier at each milestone.
        warmup: Share of the run, in [0, 1), over which the rate rises linearly; must end before the first milestone.
        total: Length of the run in scheduler steps; None lets the recipe fill it in.

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
        """The base rate's multiplier at a share of the run after warm-up."""
        share = self.warmup + (1 - self.warmup) * progress
        # Shares such as 150/240 meet the step they stand for only up to rounding.
        return self.gamma ** sum(share >= milestone - 1e-9 for milestone in self.milestones)


class OneCycleSchedule(RunSchedule):
    """Up to the base rate and down below where it began, both along half a cosine (https://arxiv.org/abs/1708.07120).

    Rates and momentum are those of `torch.optim.lr_scheduler.OneCycleLR` with ``max_lr`` as base rate: momentum, or
    Adam's first beta, falls while the rate rises, whatever the optimizer's own is.

    Args:
        optimizer: The optimizer whose learning rate is scheduled; its own rate is the highest.
        peak: Share of the run, in (0, 1), after which the rate is highest.
        start_divisor: The run begins at the base rate divided by this.
        final_divisor: It ends at the rate of the beginning divided by this.
        high_momentum: Momentum at the lowest rates. Like ``low_momentum`` the default of `OneCycleLR`.
        low_momentum: Momentum at the highest rate; None leaves momentum as it is.
        total: Length of the run in scheduler steps; None lets the recipe fill it in.

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
        """Learning rate between its lowest (0) and highest (1) value."""
        total = self.total if self.total is not None else max(2, step)
        top, last = self.peak * total - 1, total - 1
        share = step / max(top, 1) if step <= top else 1 - min(1.0, (step - top) / (last - top))
        return (1 - math.cos(math.pi * share)) / 2

    def _factor(self, step: int) -> float:
        total = self.total if self.total is not None else max(2, step)
        low = 1 / self.start_divisor / (1 if step <= self.peak * total - 1 else self.final_divisor)
        return low + (1 - low) * self.height(step)


class CyclicSchedule(RunSchedule):
    """One triangle: linearly from 0 up to the base rate, and linearly down to 0 (https://arxiv.org/abs/1506.01186).

    Rates and momentum are those of `torch.optim.lr_scheduler.CyclicLR` with ``base_lr`` 0, the base rate as ``max_lr``
    and one cycle a run, as in the code of FGSM-RS and N-FGSM. The first step has rate 0.

    Args:
        optimizer: The optimizer whose learning rate is scheduled; its own rate is the highest.
        peak: Share of the run, in (0, 1), after which the rate is highest.
        low_momentum: Momentum at the highest rate; at rate 0 it is the optimizer's own. The default is that of
            `CyclicLR`. None, or an optimizer without momentum, leaves momentum alone.
        total: Length of the run in scheduler steps; None lets the recipe fill it in.

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
        """Learning rate between its lowest (0) and highest (1) value."""
        return self._factor(step)

    def _factor(self, step: int) -> float:
        total = self.total if self.total is not None else max(1, step)
        top = self.peak * total
        return step / top if step <= top else max(0.0, (total - step) / (total - top))
