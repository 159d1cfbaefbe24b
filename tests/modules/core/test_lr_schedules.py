import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.lr_schedules import (
    CosineSchedule,
    CyclicSchedule,
    MilestoneSchedule,
    OneCycleSchedule,
)


def rates(build, total, fit=True):
    """The learning rate of each step of a run whose base rate is 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build(optimizer)
    if fit:
        scheduler.fit_to(total)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_equals_torchs_when_it_spans_the_run():
    ours = rates(CosineSchedule, 20)
    torchs = rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20), 20, fit=False)
    assert ours == pytest.approx(torchs)


def test_milestones_equal_torchs_at_the_epochs_they_stand_for():
    # The CIFAR-100 distillation schedule: 150, 180 and 210 of 240 epochs.
    ours = rates(lambda o: MilestoneSchedule(o, milestones=[150 / 240, 180 / 240, 210 / 240]), 240)
    torchs = rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [150, 180, 210]), 240, fit=False)
    assert ours == pytest.approx(torchs)


@pytest.mark.parametrize("total", [20, 100, 333])
@pytest.mark.parametrize("momentum", [0.9, 0.0, "adam"])
def test_one_cycle_equals_torchs_rate_and_momentum(total, momentum):
    """OneCycleLR cycles momentum by default, also of an optimizer that was given none."""
    found = []
    for build in (OneCycleSchedule, lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=total)):
        weights = [torch.zeros(1, requires_grad=True)]
        adam = momentum == "adam"
        optimizer = torch.optim.Adam(weights, lr=0.2) if adam else torch.optim.SGD(weights, lr=0.2, momentum=momentum)
        scheduler = build(optimizer)
        if build is OneCycleSchedule:
            scheduler.fit_to(total)
        values = []
        for step in range(total):
            group = optimizer.param_groups[0]
            values += [group["lr"], group["betas"][0] if adam else group["momentum"]]
            optimizer.step()
            if step < total - 1:
                scheduler.step()
        found.append(values)
    assert found[0] == pytest.approx(found[1])
    assert min(found[0][1::2]) == pytest.approx(0.85, abs=0.002)
    assert max(found[0][1::2]) == pytest.approx(0.95)


def test_one_cycle_can_leave_momentum_alone():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2, momentum=0.9)
    OneCycleSchedule(optimizer, low_momentum=None).fit_to(10)
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(
    ("arguments", "message"), [({"peak": 1.0}, "peak is a share"), ({"final_divisor": 0.1}, "final_divisor must be")]
)
def test_one_cycle_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        rates(lambda o: OneCycleSchedule(o, **arguments), 10)


def test_warmup_rises_linearly_from_above_zero_and_then_the_cosine_starts():
    found = rates(lambda o: CosineSchedule(o, warmup=0.2, final=0.1), 20)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[12] == pytest.approx(0.1 + 0.9 * 0.5)
    assert min(found[5:]) > 0.1


def test_the_same_schedule_fits_a_run_of_any_length():
    assert rates(CosineSchedule, 10)[5] == pytest.approx(rates(CosineSchedule, 1000)[500])


def test_a_resumed_run_may_have_another_length():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = CosineSchedule(optimizer)
    scheduler.fit_to(10)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    state = scheduler.state_dict()
    longer = CosineSchedule(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0))
    longer.fit_to(20)
    with pytest.warns(
        UserWarning, match="10 scheduler steps and has 20 now: CosineSchedule goes on at step 10"
    ) as caught:
        longer.load_state_dict(state)
    assert caught[0].filename.endswith("lr_schedules.py")  # so that the command prints the line alone
    # At step 10 of 20 the rate is half the base rate; where the shorter run had ended it was 0.
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)
    assert longer.optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


@pytest.mark.parametrize("milestones", [[0.5, 0.4], [0.0, 0.5], [0.5, 1.0], [60, 120]])
def test_milestones_that_are_not_rising_shares_are_refused(milestones):
    with pytest.raises(InputError, match="milestones are shares of the run"):
        rates(lambda o: MilestoneSchedule(o, milestones=milestones), 10)


def test_warmup_of_a_whole_run_is_refused():
    with pytest.raises(InputError, match=r"warmup is a share .* but is 5"):
        rates(lambda o: CosineSchedule(o, warmup=5), 10)


@pytest.mark.parametrize("total", [20, 333])
def test_one_triangle_equals_torchs_cyclic_rate_and_momentum(total):
    found = []
    for ours in (True, False):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2, momentum=0.9)
        if ours:
            scheduler = CyclicSchedule(optimizer)
            scheduler.fit_to(total)
        else:
            scheduler = torch.optim.lr_scheduler.CyclicLR(
                optimizer, base_lr=0.0, max_lr=0.2, step_size_up=total / 2, step_size_down=total / 2
            )
        values = []
        for _ in range(total):
            values += [optimizer.param_groups[0][key] for key in ("lr", "momentum")]
            optimizer.step()
            scheduler.step()
        found.append(values)
    assert found[0] == pytest.approx(found[1], abs=1e-9)
    assert min(found[0][1::2]) == pytest.approx(0.8, abs=0.001)


def test_one_triangle_leaves_other_optimizers_alone():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    CyclicSchedule(optimizer).fit_to(10)
    assert optimizer.param_groups[0]["momentum"] == 0
    with pytest.raises(InputError, match=r"peak is a share of the run and must lie in \(0, 1\) but is 1.0"):
        CyclicSchedule(optimizer, peak=1.0)
