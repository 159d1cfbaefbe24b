"""EL2N of a stranger's module and of ours, and the runs it refuses at their first batch."""

import math

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from helpers import trainer
from lightning.pytorch import Callback, LightningModule
from lightning_recipes.callbacks import EL2N
from lightning_recipes.modules.core.errors import InputError
from settings import classification, digits
from torch.utils.data import DataLoader, TensorDataset


class Fixed(LightningModule):
    """A stranger's module whose logits are its inputs; it counts the steps it was asked for."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))
        self.steps = 0

    def forward(self, inputs):
        return inputs + self.bias

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Stop(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


LOGITS = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0], [50.0, 0.0], [0.0, 50.0], [0.0, 0.0]])


def loader(labels=None, inputs=LOGITS):
    labels = torch.zeros(len(inputs), dtype=torch.long) if labels is None else labels
    return DataLoader(TensorDataset(inputs, labels), 2, shuffle=True)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_the_scores_are_norms_of_softmax_less_onehot_whatever_integers_the_labels_are(dtype, tmp_path):
    """Probabilities of class 0 are 1/4, 3/4, 1, 0, 1/2, and both entries of an error are equally large."""
    path = tmp_path / "scores"
    labels = torch.tensor([0, 0, 1, 1, 0], dtype=dtype)
    trainer(max_epochs=1, callbacks=[EL2N(str(path), first_epoch=0)]).fit(Fixed(), loader(labels))
    found = safetensors.torch.load_file(path)["scores"]
    expected = [math.sqrt(2) * error for error in (3 / 4, 1 / 4, 1, 0, 1 / 2)]
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_pass_in_evaluation_mode_counts_for_nothing(tmp_path):
    class Looks(Fixed):
        """After its training pass it looks at something else, as a module that logs predictions may."""

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.eval()
            self(-batch[0])
            self.train()
            return loss

    found = []
    for model in (Fixed(), Looks()):
        callback = EL2N(str(tmp_path / type(model).__name__), first_epoch=0)
        trainer(max_epochs=1, callbacks=[callback]).fit(model, loader())
        found.append(callback.memory["scores"])
    assert torch.equal(*found)


def test_a_recipe_is_scored_by_the_logits_of_its_training_step(tmp_path):
    """With a learning rate of 0 and no augmentation these are the network's at any time."""
    path = tmp_path / "scores"
    model = classification(optimizer=lambda params: torch.optim.SGD(params, lr=0.0))
    data = digits(crop_padding=0, cutout=0)
    trainer(max_epochs=2, callbacks=[EL2N(str(path), first_epoch=1)]).fit(model, data)
    given = data.train_dataloader()
    every = given.collate_fn(given.dataset.__getitems__(list(range(len(given.dataset)))))
    images, labels = data.on_after_batch_transfer(every, 0)
    model.train()
    with torch.no_grad():
        errors = model(images).softmax(1) - F.one_hot(labels, 10)
    found = safetensors.torch.load_file(path)["scores"]
    scored = ~found.isnan()
    assert scored.sum() == 96  # three whole batches
    assert torch.allclose(found[scored], errors.norm(dim=1)[scored], atol=1e-5)


@pytest.mark.parametrize("options", [{"max_epochs": 5, "callbacks": [Stop()]}, {"max_epochs": 5, "max_steps": 3}])
def test_a_run_that_ends_before_it_scores_warns_and_writes_no_file(options, tmp_path):
    """A file without scores would make KeepHardest choose at random."""
    path = tmp_path / "scores"
    callbacks = [EL2N(str(path), first_epoch=3), *options.get("callbacks", [])]
    with pytest.warns(UserWarning, match="EL2N wrote no file, as the run ended before any sample was scored"):
        trainer(**{**options, "callbacks": callbacks}).fit(Fixed(), loader())
    assert not path.exists()


class Silent(Fixed):
    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self.forward(batch[0]).mean()


class Maps(Fixed):
    """One logit for each pixel, which are none of a sample."""

    def forward(self, inputs):
        return inputs[:, :, None] + self.bias


class Late(Fixed):
    """Logits of a step's samples in the first step only, and of others after it."""

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return (self if self.steps == 1 else self.forward)(batch[0]).mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self(batch[0].flip(0))


class TwoViews(Fixed):
    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self(torch.cat([batch[0], batch[0]])).mean()


class OneRow(Fixed):
    """One row of logits, which an arithmetic of tensors would take for every sample's."""

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self(batch[0].mean(0, keepdim=True)).mean()


@pytest.mark.parametrize(
    ("model", "labels", "steps", "message"),
    [
        (Fixed, torch.full((5, 2), 0.5), 0, r"class indices \(N,\), not of soft or no labels: have the data set"),
        (Fixed, torch.zeros(5), 0, r"class indices \(N,\)"),
        (Fixed, torch.zeros(5, 1, dtype=torch.long), 0, r"class indices \(N,\)"),
        (Silent, None, 1, r"training_step got none by self\(inputs\): call it there"),
        (Maps, None, 1, r"training_step got none by self\(inputs\): call it there"),
        (Late, None, 2, r"training_step got none by self\(inputs\): call it there"),
        (TwoViews, None, 1, "gave 4 for 2: call it with the batch's inputs last"),
        (OneRow, None, 1, "gave 1 for 2: call it with the batch's inputs last"),
    ],
)
def test_what_cannot_be_scored_is_refused_at_the_first_batch_and_not_in_the_first_epoch_that_counts(
    model, labels, steps, message, tmp_path
):
    module = model()
    with pytest.raises(InputError, match=message):
        trainer(max_epochs=5, callbacks=[EL2N(str(tmp_path / "s"), first_epoch=3)]).fit(module, loader(labels))
    assert module.steps == steps
    assert not module._forward_hooks


def test_a_batch_that_is_no_pair_is_refused(tmp_path):
    data = DataLoader(TensorDataset(LOGITS), 2)
    with pytest.raises(InputError, match="EL2N needs batches of inputs and class indices"):
        trainer(max_epochs=5, callbacks=[EL2N(str(tmp_path / "s"), first_epoch=3)]).fit(Fixed(), data)
