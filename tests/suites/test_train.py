"""Every technique trains, and trains without waiting for the device or drawing from the global generators."""

import itertools
import random

import numpy as np
import pytest
import torch
from helpers import ids, trainer
from settings import SETTINGS, VARIANTS, classification, digits


@pytest.mark.parametrize("setting", [s for s in SETTINGS + VARIANTS if not s.makes_images], ids=ids)
def test_the_loss_falls(setting):
    torch.manual_seed(0)
    model, run = setting.model(), trainer(max_epochs=12, callbacks=setting.callbacks())
    data = setting.data()
    run.validate(model, data, verbose=False)
    before = run.callback_metrics["val/loss"]
    run.fit(model, data)
    assert run.callback_metrics["val/loss"] < 0.9 * before
    assert run.callback_metrics["val/accuracy"] > 0.3


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.makes_images], ids=ids)
def test_images_come_to_match(setting):
    """The loss between noise and real images falls."""
    model, losses = setting.model(), []
    model.on_train_epoch_end = lambda: losses.append(model._means.compute()["train/loss"])
    trainer(max_epochs=12, limit_val_batches=0).fit(model, setting.data())
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.mark.parametrize("setting", SETTINGS, ids=ids)
def test_a_step_reads_nothing_back_from_the_device(setting, monkeypatch):
    """Each `.item()`, `float(tensor)` and the like makes the host wait; after the first batch there are none."""
    model, run = setting.model(), trainer(max_epochs=1, callbacks=setting.callbacks(), limit_val_batches=0)
    reads = []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, _original=original, _name=name, **kwargs):
            if reads and reads[-1] == "in step":
                reads.insert(0, _name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    step = model.training_step

    def watched(batch, batch_idx):
        if batch_idx:
            reads.append("in step")
        loss = step(batch, batch_idx)
        if batch_idx:
            reads.pop()
        return loss

    model.training_step = watched
    run.fit(model, setting.data())
    assert run.global_step == 3 or (setting.selects_samples and run.global_step == 2)
    assert reads == []


# Dropout is of torch, and draws from its global generator.
@pytest.mark.parametrize("setting", [s for s in SETTINGS + VARIANTS if s.name != "dropout"], ids=ids)
def test_global_generators_do_not_matter_and_stay_as_they_were(setting):
    """Two runs that differ in the state of every global generator during training end with the same weights."""
    results = []
    for disturbance in (1, 2):
        torch.manual_seed(0)
        model = setting.model()
        random.seed(disturbance)
        np.random.seed(disturbance)
        torch.manual_seed(disturbance)
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        trainer(max_epochs=2, callbacks=setting.callbacks()).fit(model, setting.data())
        assert torch.equal(states[0], torch.get_rng_state())
        assert (states[1] == np.random.get_state()[1]).all()
        assert states[2] == random.getstate()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*results)


STEPS = {"max_steps": 4, "max_epochs": -1}
TOGETHER = [
    {"precision": "bf16-mixed", "accumulate_grad_batches": 2, "gradient_clip_val": 0.1, **STEPS},
    {"limit_train_batches": 2},
]
APART = [
    {"precision": "bf16-mixed"},
    {"accumulate_grad_batches": 2},
    {"gradient_clip_val": 0.1},
    {"fast_dev_run": True},
    {"overfit_batches": 1},
    STEPS,
]
ONE_OF_EACH_RECIPE = {"supervised", "infobatch", "pgd_at", "auglocal", "datadam"}


def runs():
    """Every technique with the options together, and one of each recipe with each option."""
    for setting, options in itertools.product(SETTINGS, TOGETHER + APART):
        quick = options in TOGETHER or setting.name in ONE_OF_EACH_RECIPE
        yield pytest.param(setting, options, id=f"{ids(setting)}-{options}", marks=[] if quick else pytest.mark.product)


@pytest.mark.parametrize(("setting", "options"), list(runs()))
def test_trains_with_the_trainers_options(setting, options):
    model = setting.model()
    if options.get("max_epochs") == -1:
        model.lr_interval = "step"
    run = trainer(**{"max_epochs": 2, "callbacks": setting.callbacks(), **options})
    run.fit(model, setting.data())
    assert torch.isfinite(run.callback_metrics["train/loss"])


def test_augmentation_changes_with_the_epoch_whatever_sampler_serves_it():
    """`overfit_batches` replaces the sampler; the images it keeps serving are still augmented anew each epoch."""
    model, seen = classification(), []
    step = model.training_step

    def watched(batch, batch_idx):
        seen.append(batch[0].clone())
        return step(batch, batch_idx)

    model.training_step = watched
    trainer(max_epochs=3, overfit_batches=1).fit(model, digits())
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
