"""What the model learns from the data, and classes of other projects."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import yaml
from lightning_recipes.recipes.cli import trainer_cli

STRANGERS = '''
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset


class Stranger(LightningModule):
    """Knows nothing of this project: no num_classes, no monitor, no network.

    Args:
        rate: Learning rate.
    """

    def __init__(self, rate: float = 0.1):
        super().__init__()
        self.rate = rate
        self.layer = torch.nn.LazyLinear(10)

    def setup(self, stage):
        self.layer(torch.zeros(1, 64))

    def step(self, batch):
        return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx):
        self.log("score", self.step(batch))

    def test_step(self, batch, batch_idx):
        self.log("score", self.step(batch))

    def predict_step(self, batch, batch_idx):
        return self.layer(batch[0].flatten(1)).softmax(1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)


def loader():
    images = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(32) % 10), batch_size=8)


class StrangeData(LightningDataModule):
    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = lambda self: loader()


class WithOwnData(Stranger):
    train_dataloader = val_dataloader = lambda self: loader()


class Manual(Stranger):
    def __init__(self, returned: str = "none"):
        super().__init__()
        self.automatic_optimization = False
        self.returned = returned

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        loss = self.step(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return {"none": None, "dict": {"parts": [loss.detach()]}, "loss": loss.detach()}[self.returned]
'''


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    (tmp_path / "strangers.py").write_text(STRANGERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("strangers", None)


def hyper_parameters(result):
    return torch.load(result.run / "checkpoints/last.ckpt")["hyper_parameters"]


def test_model_learns_classes_channels_and_size_from_the_data(recipes):
    result = recipes("fit TINY --trainer.limit_train_batches 1")
    assert result.code == 0
    known = hyper_parameters(result)
    assert (known["num_classes"], known["in_chans"], known["image_size"]) == (10, 1, 8)
    assert not [text for text in result.warnings if "replaced" in text]


def test_value_that_differs_is_warned_of_even_where_it_is_the_models_default(recipes):
    result = recipes("fit TINY --trainer.limit_train_batches 1 --model.in_chans 3")
    assert [text for text in result.warnings if "replaced" in text] == [
        "model.in_chans 3 is replaced by 1, the in_chans of Digits"
    ]


def test_value_that_differs_from_the_data_is_replaced_with_a_warning(recipes):
    result = recipes("fit TINY --trainer.limit_train_batches 1 --model.num_classes 3 --model.in_chans 1")
    assert result.code == 0
    assert [text for text in result.warnings if "replaced" in text] == [
        "model.num_classes 3 is replaced by 10, the num_classes of Digits"
    ]
    assert hyper_parameters(result)["num_classes"] == 10
    assert "num_classes" not in yaml.safe_load((result.run / "recipe.yaml").read_text())["model"]["init_args"]


def test_strangers_train_test_and_predict(recipes, strangers):
    options = "--model strangers.Stranger --model.rate 0.2 --data strangers.StrangeData"
    result = recipes(f"fit {options} --trainer.max_epochs 2")
    assert result.code == 0, result.err
    assert "epoch 2/2" in result.out
    assert result.run.parent == Path("runs/unnamed")
    assert sorted(path.name for path in result.run.rglob("*") if path.is_file()) == [
        *("last.ckpt", "metrics.csv", "recipe.yaml", "summary.json")
    ]
    again = recipes(f"fit -c {result.run}/recipe.yaml --trainer.max_epochs 1")
    assert again.code == 0, again.err
    assert again.run != result.run
    tested = recipes(f"test -c {result.run}/recipe.yaml --ckpt_path {result.run}/checkpoints/last.ckpt")
    assert tested.code == 0, tested.err
    predicted = recipes(f"predict -c {result.run}/recipe.yaml --ckpt_path {result.run}/checkpoints/last.ckpt")
    assert predicted.code == 0, predicted.err
    (file,) = result.run.rglob("predictions.csv")
    assert len(file.read_text().splitlines()) == 33


def test_stranger_on_our_data(recipes, strangers):
    assert recipes("fit --model strangers.Stranger --data Digits --trainer.max_epochs 1").code == 0


def test_checkpoint_of_another_model_that_builds_late(recipes, strangers):
    trained = recipes("fit TINY --trainer.limit_train_batches 1")
    result = recipes(f"test --model strangers.Stranger --data Digits --ckpt_path {trained.run}/checkpoints/last.ckpt")
    assert result.code == 2
    assert "loading state_dict for Stranger" in result.err
    assert "Traceback" not in result.err


def test_barebones_writes_nothing(recipes, strangers):
    result = recipes("fit --model strangers.WithOwnData --trainer.barebones true --trainer.max_epochs 1")
    assert result.code == 0, result.err
    assert list(Path.cwd().iterdir()) == []


def test_model_with_its_own_data(recipes, strangers):
    assert recipes("fit --model strangers.WithOwnData --trainer.max_epochs 1").code == 0


@pytest.mark.parametrize("returned", ["none", "dict", "loss"])
def test_manual_optimization(recipes, strangers, returned):
    options = f"--model strangers.Manual --model.returned {returned} --data strangers.StrangeData"
    result = recipes(f"fit {options} --trainer.max_epochs 1")
    assert result.code == 0, result.err
    assert "optimizer steps    " in result.out


def test_stranger_has_no_network_to_export(recipes, strangers):
    result = recipes("export --model strangers.Stranger --data Digits")
    assert result.code == 2
    assert "Stranger has no attribute `network` to export" in result.err


def test_model_that_needs_data_says_so(recipes, nothing_left):
    result = recipes("fit --model Classification --model.network convnet")
    assert result.code == 2
    assert "num_classes" in result.error


@pytest.mark.parametrize(
    ("name", "problem"),
    {
        "strangers.Nobody": "cannot use strangers.Nobody: module 'strangers' has no attribute 'Nobody'",
        "nowhere.Stranger": "cannot use nowhere.Stranger: No module named 'nowhere'",
        "strangers.StrangeData": "strangers.StrangeData is not a LightningModule",
    }.items(),
)
def test_dotted_path_that_leads_nowhere(recipes, strangers, nothing_left, name, problem):
    result = recipes(f"fit --model {name}")
    assert result.code == 2
    assert f"model: {problem}" in result.error


@pytest.fixture
def plugin(monkeypatch):
    """Installs an entry point, as far as the command line can see."""

    def install(module):
        point = EntryPoint(name="theirs", value=module, group="lightning_recipes.plugins")
        monkeypatch.setattr(trainer_cli, "entry_points", lambda group: [point] if group == point.group else [])

    return install


def test_plugin_gives_its_classes_short_names(recipes, tmp_path, strangers, plugin):
    (tmp_path / "theirs.py").write_text(STRANGERS.replace("WithOwnData", "Theirs"))
    assert "there is no class Theirs" in recipes("fit --model Theirs").error
    plugin("theirs")
    result = recipes("fit --model Theirs --trainer.max_epochs 1")
    assert result.code == 0, result.err


def test_plugin_that_cannot_be_imported_is_named(recipes, plugin, nothing_left):
    plugin("nowhere.at_all")
    result = recipes("fit TINY")
    assert result.code == 2
    assert "plugin 'theirs' (nowhere.at_all) cannot be imported: ModuleNotFoundError" in result.error
