"""Every technique goes with every other: the model of one row with the callbacks and the data of another."""

import itertools

import pytest
import torch
from helpers import ids, trainer
from lightning_recipes.modules.core.errors import InputError
from settings import SETTINGS, VARIANTS, digits

# A row brings something to another's model by its callbacks or by its data.
PARTNERS = [row for row in SETTINGS if row.callbacks is not list or row.data is not digits]
# Every row meets one partner, and every partner one model of each kind: a plain one, one whose images are mixed, one
# that another partner selects samples for, and one that makes images.
PARTNER = "infobatch"
KINDS = {"supervised", "mixing", "random_subset", "datadam"}


def pairs():
    for one, other in itertools.product(SETTINGS + VARIANTS, PARTNERS):
        quick = other.name == PARTNER or one.name in KINDS
        yield pytest.param(one, other, id=f"{ids(one)}-{ids(other)}", marks=[] if quick else pytest.mark.product)


@pytest.mark.parametrize(("one", "other"), list(pairs()))
def test_rows_combine(one, other):
    callbacks = one.callbacks() + (other.callbacks() if other is not one else [])
    if one is not other and one.selects_samples and other.selects_samples:
        # Lightning's own message where both are of one class.
        with pytest.raises((InputError, RuntimeError), match=r"both choose the training samples|more than one"):
            trainer(max_epochs=2, callbacks=callbacks).fit(one.model(), other.data())
        return
    model = one.model()
    if one.makes_images and other.selects_samples:
        with pytest.raises(InputError, match="draws its training samples itself"):
            trainer(max_epochs=2, callbacks=callbacks).fit(model, other.data())
        return
    run = trainer(max_epochs=2, callbacks=callbacks)
    if other.refuses_mixing and model.mixing is not None:
        with pytest.raises(InputError, match="turn mixup and cutmix off"):
            run.fit(model, other.data())
        return
    run.fit(model, other.data())
    assert torch.isfinite(run.callback_metrics["train/loss"])
    assert run.current_epoch == 2
