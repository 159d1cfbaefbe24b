"""A loss that is not finite ends the run; what was written before is finite and intact, and nothing after."""

import re
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_recipes.callbacks import FiniteLoss
from lightning_recipes.modules.core.errors import RunError
from lightning_recipes.modules.sample_weighting import SampleWeighting
from torch.utils.data import DataLoader, TensorDataset


class Breaks(pl.LightningModule):
    """Its loss is ``value`` at step ``at``, and through its weights ever after."""

    def __init__(self, at, value=torch.nan, form="tensor"):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.at, self.value, self.form = at, value, form
        self.automatic_optimization = form != "manual"

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        if self.global_step == self.at:
            loss = loss * self.value
        if self.form == "manual":
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
            return None
        return {"loss": loss, "other": "text"} if self.form == "dict" else loss

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(module, *callbacks, **options):
    """Three epochs of six steps."""
    data = DataLoader(TensorDataset(torch.ones(12, 4)), batch_size=2)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FiniteLoss(), *callbacks],
        **options,
    )
    trainer.fit(module, data, data)
    return trainer


def every_step():
    return ModelCheckpoint("steps", filename="{step}", every_n_train_steps=1, save_top_k=-1)


def every_epoch():
    return ModelCheckpoint("epochs", filename="{step}", save_top_k=-1)


def saved_steps(folder):
    """Steps of the checkpoints, all of which are finite."""
    steps = []
    for file in Path(folder).glob("*.ckpt"):
        content = torch.load(file)
        assert all(weight.isfinite().all() for weight in content["state_dict"].values()), file
        steps.append(content["global_step"])
    return sorted(steps)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("form", ["tensor", "dict"])
def test_names_the_first_bad_step_and_the_last_good_checkpoint(value, form):
    with pytest.raises(RunError) as raised:
        fit(Breaks(8, value, form), every_epoch())
    (good,) = Path("epochs").iterdir()
    assert "not finite at step 8 (epoch 1)" in str(raised.value)
    assert f"The last good checkpoint is {good.resolve()}" in str(raised.value)
    assert "lower learning rate" in str(raised.value)
    assert saved_steps("epochs") == [6]


def test_no_checkpoint_of_a_step_after_it():
    with pytest.raises(RunError, match="at step 8 ") as raised:
        fit(Breaks(8), every_step())
    # Lightning's callback names the next file before it is written.
    good = re.search(r"last good checkpoint is (\S+)\.\s", str(raised.value))[1]
    assert torch.load(good)["global_step"] == 8
    assert saved_steps("steps") == list(range(1, 9))


def test_no_checkpoint_of_broken_weights_while_the_loss_is_finite():
    class BadGradient(Breaks):
        def on_before_optimizer_step(self, optimizer):
            if self.global_step == 5:
                self.layer.weight.grad.fill_(torch.inf)

    with pytest.raises(RunError, match=r"weights are not finite after step 5 \(epoch 0\)"):
        fit(BadGradient(-1), every_epoch())
    assert saved_steps("epochs") == []


def test_before_any_checkpoint():
    with pytest.raises(RunError, match=r"at step 0 \(epoch 0\)\. No checkpoint had been written yet"):
        fit(Breaks(0), every_epoch())
    assert not list(Path.cwd().rglob("*.ckpt"))


def test_accumulated_gradients():
    with pytest.raises(RunError, match="at step 4 "):
        fit(Breaks(4), every_epoch(), accumulate_grad_batches=2)
    assert saved_steps("epochs") == [3]


@pytest.mark.parametrize("form", ["tensor", "dict", "manual"])
def test_finite_run_is_left_alone(form):
    assert fit(Breaks(-1, form=form)).global_step == 18


def test_host_reads_the_loss_rarely(monkeypatch):
    """Reading it waits for the device."""
    reads = []
    check = FiniteLoss._check
    monkeypatch.setattr(FiniteLoss, "_check", lambda self, trainer: (reads.append(1), check(self, trainer)))
    fit(Breaks(-1), enable_checkpointing=False, num_sanity_val_steps=0)
    assert len(reads) == 3 * 2  # before each validation and at each end of an epoch


def test_a_second_fit_starts_afresh():
    callback = FiniteLoss()
    data = DataLoader(TensorDataset(torch.ones(12, 4)), batch_size=2)
    options = {"max_epochs": 1, "logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    with pytest.raises(RunError):
        pl.Trainer(callbacks=[callback], **options).fit(Breaks(2), data)
    pl.Trainer(callbacks=[callback], **options).fit(Breaks(-1), data)


def test_manual_optimization_is_judged_by_the_sample_losses_of_a_recipe():
    class Recipe(SampleWeighting, Breaks):
        def training_step(self, batch, batch_idx):
            self.reduce(torch.ones(2) * (self.value if self.global_step == self.at else 1.0))
            return super().training_step(batch, batch_idx)

    with pytest.raises(RunError, match="loss was not finite at step 4"):
        fit(Recipe(4, form="manual"))


def test_one_bad_part_of_an_accumulated_step_is_found():
    class Once(Breaks):
        def training_step(self, batch, batch_idx):
            loss = self.layer(batch[0]).square().mean()
            # Its gradient is zero, so that the weights stay finite.
            return loss + torch.tensor(torch.nan) if (self.global_step, batch_idx) == (1, 2) else loss

    with pytest.raises(RunError, match="loss was not finite at step 1"):
        fit(Once(-1), accumulate_grad_batches=2)
