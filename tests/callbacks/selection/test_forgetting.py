"""The file of scores of a first run: where it may go, and what becomes of one that is there."""

import math
from pathlib import Path

import pytest
import safetensors
import torch
from helpers import Snapshots, trainer
from lightning.pytorch import Callback, LightningModule
from lightning_recipes.callbacks import Forgetting
from lightning_recipes.modules.core.errors import InputError
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Flipping(LightningModule):
    """Right in epochs 0, 2, 3 about samples whose input is 1, never about the others; labels are 0."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))
        self.steps = 0

    def forward(self, inputs):
        right = torch.tensor([self.current_epoch in (0, 2, 3)]) & (inputs[:, 0] == 1)
        return torch.stack([right.float(), (~right).float()], dim=1) + self.bias

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def scores(path):
    with safetensors.safe_open(str(path), "pt") as file:
        return file.get_tensor("scores").tolist(), file.metadata()


def fit(callback, epochs=1, model=None, data=None, more=(), **options):
    model = model or Flipping()
    data = data or DataLoader(TensorDataset(torch.tensor([[1.0], [0.0], [1.0]]), torch.zeros(3, dtype=torch.long)), 2)
    run = trainer(max_epochs=epochs, callbacks=[callback, *more], **options)
    run.fit(model, data)
    return run, model, data


def test_scores_are_written_once_at_the_end_with_what_they_are(tmp_path):
    """Right, wrong, right, right, wrong: forgotten twice."""
    path, seen = tmp_path / "new" / "scores.safetensors", []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(path.exists())

    fit(Forgetting(str(path)), epochs=5, more=[Look()])
    assert seen == [False] * 5
    found, facts = scores(path)
    assert found == [2, math.inf, 2]
    assert facts["kind"] == "Forgetting"


class Strings(Dataset):
    targets = ("cat", "dog", "cat")

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.ones(1), 0


class Boxes(Strings):
    targets = ({"box": 1}, {"box": 2}, {"box": 3})


@pytest.mark.parametrize("dataset", [Strings(), Boxes()])
def test_targets_that_are_no_classes_cost_no_scores(dataset, tmp_path):
    fit(Forgetting(str(tmp_path / "s")), data=DataLoader(dataset, 2))
    assert scores(tmp_path / "s")[0] == [0, 0, 0]


def test_a_run_that_is_broken_off_writes_nothing(tmp_path):
    class Break(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        fit(Forgetting(str(tmp_path / "s")), more=[Break()])
    assert not (tmp_path / "s").exists()


def test_a_file_of_a_run_that_ended_meanwhile_is_left(tmp_path):
    class Other(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            (tmp_path / "s.safetensors").write_text("other")
            (tmp_path / "s_2.safetensors").write_text("another")

    with pytest.warns(UserWarning, match=r"s\.safetensors was written by another run meanwhile: .*s_3\.safetensors"):
        fit(Forgetting(str(tmp_path / "s.safetensors")), more=[Other()])
    assert (tmp_path / "s.safetensors").read_text() == "other"
    assert (tmp_path / "s_2.safetensors").read_text() == "another"
    assert scores(tmp_path / "s_3.safetensors")[0] == [0, math.inf, 0]


def test_a_run_that_goes_on_replaces_its_own_file(tmp_path):
    path = tmp_path / "s"
    run, model, data = fit(Forgetting(str(path)), epochs=1, more=[Snapshots(tmp_path)])
    run.fit_loop.max_epochs = 2
    run.fit(model, data)
    assert scores(path)[0] == [1, math.inf, 1]

    checkpoint = next(tmp_path.glob("0-*-epoch.ckpt"))
    run = trainer(max_epochs=5, callbacks=[Forgetting(str(path))])
    run.fit(Flipping(), data, ckpt_path=checkpoint)
    assert scores(path)[0] == [2, math.inf, 2]


def test_a_resumed_run_replaces_no_folder(tmp_path):
    fit(Forgetting(str(tmp_path / "s")), more=[Snapshots(tmp_path)])
    (tmp_path / "folder").mkdir()
    run, model = trainer(max_epochs=2, callbacks=[Forgetting(str(tmp_path / "folder"))]), Flipping()
    data = DataLoader(TensorDataset(torch.ones(3, 1), torch.zeros(3, dtype=torch.long)), 2)
    with pytest.raises(InputError, match="folder exists: remove it"):
        run.fit(model, data, ckpt_path=next(tmp_path.glob("0-*-epoch.ckpt")))
    assert model.steps == 0


def test_a_run_of_its_own_by_the_same_callback_replaces_nothing(tmp_path):
    callback = Forgetting(str(tmp_path / "s"))
    fit(callback)
    with pytest.raises(InputError, match="exists: remove it, or give Forgetting another path"):
        fit(callback)


@pytest.mark.parametrize(("place", "message"), [("folder", "exists: remove it"), ("file/s", "cannot be written")])
def test_a_path_that_cannot_be_written_is_refused_before_the_first_step(place, message, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    model = Flipping()
    with pytest.raises(InputError, match=f"path {tmp_path}/{place} {message}"):
        fit(Forgetting(str(tmp_path / place)), model=model)
    assert model.steps == 0


@pytest.mark.parametrize("options", [{"fast_dev_run": True}, {"overfit_batches": 1}], ids=str)
def test_a_trial_run_neither_writes_nor_minds_a_file(options, tmp_path):
    path: Path = tmp_path / "s"
    path.write_text("other")
    fit(Forgetting(str(path)), **options)
    assert path.read_text() == "other"
