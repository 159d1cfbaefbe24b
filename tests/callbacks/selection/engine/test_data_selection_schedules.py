"""Schedules of a stranger's run end where they would have without pruning."""

from __future__ import annotations

import math

import pytest
import torch
from foreign import Averaging, Manual, Stranger, fit, loader
from lightning_recipes.callbacks import InfoBatch, RandomSubset


def onecycle(optimizer, steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps)


def cosine(optimizer, steps):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def multistep(optimizer, steps):
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps // 2, steps - 1])


def last(model):
    scheduler = model.lr_schedulers()
    return scheduler.last_epoch, scheduler.get_last_lr()[0]


@pytest.mark.parametrize("schedule", [onecycle, cosine, multistep])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"accumulate_grad_batches": 3},
        {"accumulate_grad_batches": 50},
        {"limit_train_batches": 9},
        {"max_steps": 1000},
    ],
    ids=str,
)
@pytest.mark.parametrize("frequency", [1, 2, 3])
def test_step_schedules_end_as_without_pruning(schedule, options, frequency):
    if frequency > 1 and schedule is not cosine:
        pytest.skip("one schedule tells")
    ends = []
    for callbacks in ([], [InfoBatch(delta=1.0)]):
        model = (Stranger if callbacks else Averaging)(60, schedule=schedule, frequency=frequency)
        run = fit(model, loader(60, 6), *callbacks, max_epochs=5, limit_val_batches=0, **options)
        ends.append((*last(model), run.global_step))
    assert ends[1][:2] == (ends[0][0], pytest.approx(ends[0][1], abs=1e-12))
    assert ends[1][2] < ends[0][2] or options == {"accumulate_grad_batches": 50}


@pytest.mark.parametrize("frequency", [2, 4])
def test_schedules_stepped_more_rarely_than_a_short_epoch_is_long(frequency):
    ends = []
    for callbacks in ([], [RandomSubset(0.8)]):
        model = Averaging(40, schedule=cosine, frequency=frequency)
        fit(model, loader(), *callbacks, max_epochs=4)
        ends.append(last(model)[0])
    assert ends[0] == ends[1] == 4 * (5 // frequency)


def test_the_rate_follows_the_share_of_the_epoch_that_is_done():
    model, full = Stranger(60, schedule=cosine), Averaging(60, schedule=cosine)
    fit(model, loader(60, 6), InfoBatch(delta=1.0))
    fit(full, loader(60, 6))
    done = 0
    for epoch in range(3):
        count = len(model.epoch(epoch))
        for batch in range(1, count + 1):
            assert model.rates[done] == pytest.approx(full.rates[10 * epoch + math.floor(batch * 10 / count) - 1])
            done += 1
    assert done == len(model.rates) < 30


def test_other_schedules_are_left_alone():
    by_epoch = Stranger(schedule=lambda optimizer, steps: cosine(optimizer, 4), interval="epoch")
    fit(by_epoch, loader(), InfoBatch(delta=1.0), max_epochs=4)
    assert last(by_epoch) == (4, pytest.approx(0))
    by_steps = Stranger(schedule=onecycle)
    run = fit(by_steps, loader(), InfoBatch(delta=1.0), max_steps=18, max_epochs=-1)
    assert run.global_step == 18
    assert last(by_steps)[0] == 18


def test_a_plateau_schedule_is_left_alone():
    def plateau(optimizer, steps):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1000)

    model = Stranger(schedule=plateau, monitor="loss_now")
    step = model.training_step

    def logging(batch, batch_idx):
        losses = step(batch, batch_idx)
        model.log("loss_now", losses.mean())
        return losses

    model.training_step = logging
    run = fit(model, loader(), InfoBatch(delta=1.0))
    assert model.lr_schedulers().last_epoch == run.global_step < 15


def test_a_modules_own_way_to_step_schedules_is_used():
    class Own(Stranger):
        calls = 0

        def lr_scheduler_step(self, scheduler, metric):
            self.calls += 1
            super().lr_scheduler_step(scheduler, metric)

    model = Own(schedule=cosine)
    fit(model, loader(), InfoBatch(delta=1.0))
    assert model.calls == last(model)[0] == 15


def test_schedules_under_manual_optimization_are_the_modules():
    model = Manual(schedule=cosine)
    fit(model, loader(), InfoBatch(delta=1.0))
    assert last(model)[0] == 0
