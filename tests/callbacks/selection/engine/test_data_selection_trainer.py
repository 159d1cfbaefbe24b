"""Lightning's own bookkeeping stays right while the epochs of a stranger's run change their length."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from foreign import Averaging, Contracted, Stranger, fit, loader
from helpers import trainer, weights
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import (
    EarlyStopping,
)
from lightning_recipes.callbacks import InfoBatch, RandomSubset
from torch.utils.data import DataLoader, DistributedSampler


class Lengths(Callback):
    """Length of each epoch as Lightning gives it to a progress bar."""

    def __init__(self):
        self.known, self.last = [], []

    def on_train_epoch_start(self, trainer, *_):
        self.known.append(trainer.num_training_batches)

    def on_train_batch_end(self, trainer, *_):
        if trainer.is_last_batch:
            self.last.append(trainer.current_epoch)


def lengths_of(model, epochs):
    return [len(model.epoch(epoch)) for epoch in range(epochs)]


# -- validation and lengths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "validations"),
    [
        ({}, [1] * 4),
        ({"val_check_interval": 0.5}, None),
        ({"val_check_interval": 2}, None),
        ({"val_check_interval": 10}, [1] * 4),  # longer than the short epochs
        ({"check_val_every_n_epoch": 2}, [0, 1, 0, 1]),
        ({"limit_train_batches": 9}, [1] * 4),
        ({"limit_train_batches": 2}, [1] * 4),
        ({"limit_train_batches": 0.7}, [1] * 4),
        ({"num_sanity_val_steps": 2}, [1] * 4),
        ({"reload_dataloaders_every_n_epochs": 1}, [1] * 4),
        ({"reload_dataloaders_every_n_epochs": 2, "limit_train_batches": 9}, [1] * 4),
    ],
    ids=str,
)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_epoch_is_validated_and_has_its_length(options, validations, num_workers):
    if num_workers and "val_check_interval" in options:
        pytest.skip("workers and when to validate have nothing to do with each other")
    model, lengths = Stranger(), Lengths()
    run = fit(model, loader(40, 4, num_workers=num_workers), InfoBatch(delta=0.75), lengths, max_epochs=4, **options)
    found = lengths_of(model, 4)
    limit = options.get("limit_train_batches", 1.0)
    assert found[0] == found[3] == (min(10, limit) if isinstance(limit, int) else int(10 * limit))
    assert 0 < found[1] < found[0] or limit == 2
    assert lengths.known == found
    assert lengths.last == [0, 1, 2, 3]
    assert run.global_step == sum(found)
    expected = validations
    if options.get("val_check_interval") == 0.5:
        expected = [length // max(1, length // 2) for length in found]
    elif options.get("val_check_interval") == 2:
        expected = [max(1, length // 2) for length in found]
    assert [model.validated.count(epoch) for epoch in range(4)] == expected
    for epoch in range(4):
        assert len(model.reads(epoch)) - len(model.indices(epoch)) <= 1
        assert len(model.epoch(epoch)[-1].indices) > 1  # for batch normalisation


def test_validation_by_total_batches_counts_on():
    model = Stranger()
    options = {"check_val_every_n_epoch": None, "val_check_interval": 7}
    run = fit(model, loader(), InfoBatch(delta=1.0), max_epochs=6, **options)
    assert run.global_step < 30
    assert len(model.validated) == run.global_step // 7


def test_fast_dev_run():
    model = Stranger()
    run = fit(model, loader(), InfoBatch(), fast_dev_run=True)
    assert run.global_step == 1
    model = Stranger()
    fit(model, loader(), RandomSubset(0.5, rescale=True), fast_dev_run=2)
    assert [len(step.indices) for step in model.steps] == [8, 8]


@pytest.mark.parametrize("kind", [Stranger, Contracted])
def test_overfit_batches_turn_it_off(kind):
    model, plain, callback = kind(), Averaging(), InfoBatch(delta=1.0)
    with pytest.warns(UserWarning, match="InfoBatch is off in this run, as overfit_batches always"):
        fit(model, loader(shuffle=False), callback, overfit_batches=2)
    fit(plain, loader(shuffle=False), overfit_batches=2)
    assert [step.indices for step in model.steps] == [list(range(8)), list(range(8, 16))] * 3
    assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(model).items())


def test_max_steps_end_a_run_within_an_epoch():
    model = Stranger()
    run = fit(model, loader(), InfoBatch(delta=1.0), max_steps=7)
    assert run.global_step == 7
    assert lengths_of(model, 2) == [5, 2]


def test_annealing_follows_max_steps():
    """With the run's length in steps the last ones use everything too."""
    model = Stranger()
    fit(model, loader(), InfoBatch(delta=0.6), max_steps=40, max_epochs=-1)
    full = [len(model.indices(epoch)) == 40 for epoch in range(model.steps[-1].epoch)]
    assert full[0]
    assert not any(full[1:4])
    assert all(full[-2:])


def test_early_stopping_sees_every_epoch():
    model = Stranger()
    stop = EarlyStopping("val_loss", mode="max", patience=2, strict=True)
    run = fit(model, loader(), InfoBatch(delta=1.0), stop, max_epochs=20)
    assert stop.stopped_epoch == 2
    assert run.current_epoch == 3


@pytest.mark.parametrize("where", ["datamodule", "module", "arguments by position"])
def test_a_loader_from_a_hook(where):
    model = Stranger()
    if where != "datamodule":
        model.train_dataloader = loader if where == "module" else partial(DataLoader, loader().dataset, 8, True)
        trainer(max_epochs=2, callbacks=[InfoBatch(delta=1.0)]).fit(model)
    else:
        data = LightningDataModule.from_datasets(loader().dataset, batch_size=8)
        trainer(max_epochs=2, callbacks=[InfoBatch(delta=1.0)]).fit(model, data)
    assert len(model.indices(0)) == 40 > len(model.indices(1))


def test_a_distributed_sampler_of_a_users_own_is_followed():
    own = DistributedSampler(loader().dataset, num_replicas=2, rank=0, seed=3)
    model = Averaging()
    run = fit(model, loader(shuffle=None, sampler=own), RandomSubset(0.5))
    assert lengths_of(model, 3) == [2, 2, 2]
    assert run.global_step == 6
    assert len({tuple(model.indices(epoch)) for epoch in range(3)}) == 3
