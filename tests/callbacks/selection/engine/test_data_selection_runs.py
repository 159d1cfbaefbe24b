"""A selection leaves a stranger's module, loader and trainer as they were, whatever else is done with them."""

from __future__ import annotations

import copy

import pytest
import torch
from foreign import Contracted, Stranger, fit, loader
from helpers import trainer, weights
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.tuner import Tuner
from lightning_recipes.callbacks import InfoBatch, RandomSubset


def test_a_second_run_with_a_new_trainer_starts_anew():
    callback = InfoBatch(delta=1.0, seed=1)
    runs = [Stranger(), Stranger()]
    for model in runs:
        fit(model, loader(), callback)
    assert [step.indices for step in runs[0].steps] == [step.indices for step in runs[1].steps]
    assert all(torch.equal(value, weights(runs[1])[name]) for name, value in weights(runs[0]).items())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_same_trainer_goes_on_for_more_epochs(num_workers):
    whole, model = Stranger(lr=0.0), Stranger(lr=0.0)  # as the optimizer is a new one
    fit(whole, loader(num_workers=num_workers), InfoBatch(delta=1.0), max_epochs=5)
    data = loader(num_workers=num_workers)
    run = fit(model, data, InfoBatch(delta=1.0), max_epochs=2)
    run.fit_loop.max_epochs = 5
    run.fit(model, data)
    assert [step.indices for step in model.steps] == [step.indices for step in whole.steps]
    assert all(torch.equal(a, b) for a, b in zip(model.weights, whole.weights, strict=True))


def test_validate_and_test_after_fit():
    model = Stranger()
    run = fit(model, loader(), InfoBatch())
    (validated,) = run.validate(model, loader(4, shuffle=False), verbose=False)
    (tested,) = run.test(model, loader(4, shuffle=False), verbose=False)
    assert validated["val_loss"] == tested["val_loss"] == pytest.approx(model.losses(torch.arange(4)).mean().item())


@pytest.mark.parametrize("kind", [Stranger, Contracted])
@pytest.mark.parametrize("same_trainer", [True, False])
def test_an_exception_leaves_module_and_loader_as_they_were(kind, same_trainer):
    class Breaks(kind):
        def on_after_backward(self):
            if self.current_epoch == 1 and len(self.epoch(1)) == 2:
                raise KeyError("broken")
            if self.current_epoch == 1:
                super().on_after_backward()

    model, data = Breaks(), loader(shuffle=False)
    run = trainer(max_epochs=3, callbacks=[InfoBatch(delta=1.0)])
    with pytest.raises(KeyError):
        run.fit(model, data)
    assert "training_step" not in vars(model)
    batch = torch.arange(3)
    assert model.training_step(batch, 0).shape == (() if kind is Contracted else (3,))
    model.steps.clear()
    model.on_after_backward = lambda: None
    step = model.training_step
    if kind is Stranger:
        model.training_step = lambda batch, batch_idx: step(batch, batch_idx).mean()
    again = run if same_trainer else trainer(max_epochs=3)
    again.callbacks = []
    again.fit(model, data)
    assert {index for step in model.steps for index in step.indices} == set(range(40))
    assert model.steps[-1].indices == list(range(32, 40))


@pytest.mark.parametrize("callback", [InfoBatch, RandomSubset])
def test_a_training_step_of_the_instance_stays(callback):
    """Where `torch.compile` of a module, for one, leaves the compiled step."""
    model, called = Stranger(), []
    step = model.training_step

    def own(batch, batch_idx):
        called.append(batch_idx)
        losses = step(batch, batch_idx)
        return losses if callback is InfoBatch else losses.mean()

    model.training_step = own
    for _ in range(2):
        called.clear()
        fit(model, loader(), callback(), max_epochs=1)
        assert called
        assert model.training_step is own


@pytest.mark.parametrize("early_exit", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_lr_find_then_fit(early_exit, num_workers, tmp_path):
    def run_of(*callbacks):
        return trainer(max_epochs=3, callbacks=[InfoBatch(delta=1.0), *callbacks], default_root_dir=tmp_path)

    search = {"min_lr": 1e-3, "max_lr": 1e-2, "num_training_steps" if not early_exit else "num_training": 12}
    data, model, plain = loader(num_workers=num_workers), Stranger(), Stranger()
    if early_exit:
        run = run_of()
        Tuner(run).lr_find(model, data, **search)
        assert len(model.steps) == 12
        searched = 12
        run.fit(model, data)
    else:
        run_of(LearningRateFinder(**search)).fit(model, data)
        searched = 12
    del model.steps[:searched], model.weights[:searched]
    plain.lr = model.lr
    run_of().fit(plain, data)
    assert [step.indices for step in model.steps] == [step.indices for step in plain.steps]
    assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(model).items())


def test_batch_size_finder_then_fit(tmp_path):
    class Data(LightningDataModule):
        batch_size = 2

        def train_dataloader(self):
            return loader(batch_size=self.batch_size)

        def val_dataloader(self):
            return loader(4, shuffle=False)

    data, model = Data(), Stranger()
    run = trainer(max_epochs=2, callbacks=[InfoBatch(delta=1.0)], default_root_dir=tmp_path)
    Tuner(run).scale_batch_size(model, data, steps_per_trial=1, max_trials=2)
    assert data.batch_size == 4
    model.steps.clear()
    run.fit(model, data)
    assert [len(step.indices) for step in model.epoch(0)] == [4] * 10
    assert len(model.indices(1)) < 40


# -- copies of the module --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Stranger, Contracted])
def test_a_module_copied_during_fit_is_one_of_its_own(kind):
    copies = []

    class Copies(Callback):
        def on_train_batch_end(self, trainer, model, *_):
            if trainer.global_step == 7:
                copies.append(copy.deepcopy(model))

    model = kind()
    fit(model, loader(), InfoBatch(delta=1.0), Copies())
    (copied,) = copies
    assert copied._trainer is None
    count, batch = len(model.steps), torch.arange(3)
    copied.value.data.zero_()
    copied.shared.data.zero_()
    copied._trainer, copied.sample_weights = model._trainer, None
    assert copied.training_step(batch, 0).mean() == 1
    assert len(model.steps) == count
    # And it can be trained as any other.
    count = len(copied.steps)
    fit(copied, loader(), InfoBatch(delta=1.0))
    assert len(copied.steps) > count
    assert len(model.steps) < count + 12


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "average",
    [WeightAveraging, lambda: EMAWeightAveraging(decay=0.5), lambda: StochasticWeightAveraging(0.1, swa_epoch_start=1)],
    ids=["average", "ema", "swa"],
)
def test_weight_averaging_beside_it(average, first):
    order = [average(), InfoBatch(delta=1.0)]
    model, alone = Stranger(), Stranger()
    fit(model, loader(), *(order if first else order[::-1]), max_epochs=4)
    fit(alone, loader(), InfoBatch(delta=1.0), max_epochs=4)
    assert len(model.indices(1)) < 40
    assert len(model.indices(0)) == 40
    assert model.steps[0].indices == alone.steps[0].indices
    assert not torch.equal(model.value, alone.value)
    assert "training_step" not in vars(model)
