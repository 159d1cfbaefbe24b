"""`recipes temperatures` looks at a checkpoint and leaves a table, the logits and a plot."""

import csv
import json
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from lightning_recipes.datamodules import Digits
from lightning_recipes.modules.teachers import temperature_grid
from lightning_recipes.recipes import Classification
from lightning_recipes.recipes.cli.tools import temperatures as temperatures_command
from safetensors import safe_open


@pytest.fixture
def command(recipes):
    """The command for a checkpoint of a run of a second."""
    run = recipes("fit TINY --run_dir teacher").run
    return f"temperatures -c {run}/recipe.yaml --ckpt_path {run}/checkpoints/best.ckpt --run_dir out"


def written(folder):
    with (folder / "temperatures.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("part", "images"), [("train", 80), ("val", 126)])
def test_the_table_is_that_of_the_logits(recipes, command, part, images, tmp_path):
    result = recipes(f"{command} --part {part} --tau_true [1,4] --tau_wrong [1,2]")
    assert result.code == 0, result.err
    assert f"means over {images} {part} images" in result.out
    folder = Path("out")
    saved = safetensors.torch.load_file(folder / "logits.safetensors")
    assert saved["logits"].shape == (images, 10)
    expected = temperature_grid(saved["logits"], saved["labels"], tau_true=[1, 4], tau_wrong=[1, 2])
    assert written(folder) == expected
    # Logits and labels belong together: the network knows some of what it was trained on.
    accuracy = (saved["logits"].argmax(1) == saved["labels"]).float().mean()
    assert accuracy == pytest.approx(1 - expected[0]["wrong"])
    assert accuracy > 0.15
    assert (folder / "temperatures.png").stat().st_size > 10_000


def passed(batch_size=16, **options):
    """Logits and labels of the teacher on the first epoch's images, by a loop of our own."""
    model = Classification.load_from_checkpoint("teacher/checkpoints/best.ckpt").eval()
    data = Digits(subset=8, batch_size=batch_size, **options)
    data.setup("fit")
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    with torch.no_grad():
        return torch.cat([model(images) for images, _ in batches]), torch.cat([labels for _, labels in batches])


def saved(folder="out"):
    tensors = safetensors.torch.load_file(Path(folder, "logits.safetensors"))
    return tensors["logits"], tensors["labels"]


ONE = "--tau_true [4] --tau_wrong [2]"


def test_images_are_augmented_as_in_the_first_epoch(recipes, command):
    augmented = "--data.crop_padding 2 --data.cutout 3"
    assert recipes(f"{command} {ONE} {augmented}").code == 0
    logits, labels = saved()
    expected, expected_labels = passed(crop_padding=2, cutout=3)
    assert torch.equal(labels, expected_labels)
    torch.testing.assert_close(logits, expected)
    plain, _ = passed(crop_padding=0)
    assert (logits - plain).abs().max() > 0.1


def test_images_that_training_drops_from_its_last_batch_are_there(recipes, command):
    assert recipes(f"{command} {ONE} --data.batch_size 24").code == 0
    assert len(passed(24)[0]) == 72
    assert saved()[1].bincount().tolist() == [8] * 10


def test_a_checkpoint_within_an_epoch_gives_a_whole_one(recipes, command):
    run = recipes("fit TINY --trainer.max_steps 2 --run_dir stopped").run
    result = recipes(f"{command} {ONE} --ckpt_path {run}/checkpoints/last.ckpt --part train")
    assert result.code == 0, result.err
    assert len(saved()[0]) == 80


def test_the_logits_say_what_they_are(recipes, command):
    assert recipes(f"{command} {ONE} --part val").code == 0
    with safe_open("out/logits.safetensors", "pt") as file:
        said = file.metadata()
    assert said["part"] == "val"
    assert said["checkpoint"] == "teacher/checkpoints/best.ckpt"
    assert json.loads(said["class_names"]) == list("0123456789")
    logits, labels = saved()
    assert (logits.dtype, labels.dtype) == (torch.float32, torch.int64)
    recipe = yaml.safe_load(Path("out/recipe.yaml").read_text())
    assert recipe["data"]["init_args"]["subset"] == 8
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("logits.safetensors", "recipe.yaml", "temperatures.csv", "temperatures.png")
    ]


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16-true", 0.1), ("bf16-mixed", 0.1), ("64-true", 1e-4)])
def test_precision_of_the_trainer(recipes, command, precision, tolerance):
    result = recipes(f"{command} {ONE} --trainer.precision {precision}")
    assert result.code == 0, result.err
    logits, _ = saved()
    expected, _ = passed()
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=0)
    assert not torch.equal(logits, expected)


def test_without_a_run_dir_it_writes_below_the_teachers_run(recipes, command):
    result = recipes(command.replace("--run_dir out", ONE))
    assert result.code == 0, result.err
    (folder,) = Path("teacher/temperatures").iterdir()
    for name in ("temperatures.csv", "logits.safetensors", "temperatures.png"):
        assert (folder / name).is_file()
        assert f" {folder / name}\n" in result.out


def test_nothing_is_written_by_a_trial_run(recipes, command):
    before = sorted(Path.cwd().rglob("*"))
    result = recipes(f"{command} {ONE} --trainer.fast_dev_run true")
    assert result.code == 0, result.err
    assert "means over 16 train images" in result.out
    assert sorted(Path.cwd().rglob("*")) == before


def test_limits_of_the_trainer(recipes, command):
    options = "--trainer.limit_train_batches 2 --trainer.limit_val_batches 3 --data.eval_batch_size 10"
    for part, images in (("train", 32), ("val", 30)):
        result = recipes(f"{command.replace('out', part)} {ONE} {options} --part {part}")
        assert result.code == 0, result.err
        assert f"means over {images} {part} images" in result.out


@pytest.mark.parametrize("name", ["logits.safetensors", "temperatures.csv", "temperatures.png"])
def test_nothing_is_overwritten(recipes, command, name):
    Path("out").mkdir()
    Path("out", name).write_text("precious")
    result = recipes(f"{command} {ONE}")
    assert result.code == 2
    assert f"out/{name} exists already" in result.error
    assert [path.name for path in Path("out").iterdir()] == [name]
    assert Path("out", name).read_text() == "precious"


STRANGERS = '''
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


def samples(labels):
    images = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return TensorDataset(images, labels)


class Network(LightningModule):
    """Has a network and no forward."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.9))

    def training_step(self, batch, batch_idx):
        return None


class Late(LightningModule):
    """Its layer comes with setup, its data with it, and its images have to be halved."""

    def setup(self, stage):
        self.stage = stage
        self.layer = nn.Linear(64, 10)

    def forward(self, images):
        return self.layer(images.flatten(1))

    def train_dataloader(self):
        assert self.stage == "fit"
        return DataLoader(samples(torch.arange(30) % 10), batch_size=8, shuffle=True, drop_last=True)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] / 2, batch[1]


class Scores(Network):
    """Gives a number for each image."""

    def forward(self, images):
        return images.flatten(1).sum(1)


class Nothing(LightningModule):
    """Gives no logits."""


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.ones(1, 8, 8), label) for label in range(10)])


class Data(LightningDataModule):
    """What a loader can hold.

    Args:
        kind: Of the labels.
    """

    def __init__(self, kind: str = "good"):
        super().__init__()
        self.kind = kind

    def setup(self, stage):
        classes = torch.arange(30) % 10
        labels = {"unknown": classes - 1, "soft": torch.rand(30, 10), "empty": classes[:0]}
        self.samples = samples(labels.get(self.kind, classes))

    def train_dataloader(self):
        if self.kind == "stream":
            return DataLoader(Stream(), batch_size=4)
        if self.kind == "dict":
            return DataLoader([{"image": image, "label": label} for image, label in self.samples], batch_size=4)
        return DataLoader(self.samples, batch_size=8)
'''


@pytest.fixture
def strangers(monkeypatch):
    Path("strangers.py").write_text(STRANGERS)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    yield
    sys.modules.pop("strangers", None)


def test_any_network_and_any_loader(recipes, strangers):
    for kind, images in (("good", 30), ("stream", 10)):
        options = f"--model strangers.Network --data strangers.Data --data.kind {kind}"
        result = recipes(f"temperatures {options} {ONE} --run_dir {kind}")
        assert result.code == 0, result.err
        assert f"means over {images} train images" in result.out
    assert "no --ckpt_path was given: temperatures uses the network as it was built" in result.warnings
    # All images are the same, and so are their logits, where dropout is off.
    logits, _ = saved("stream")
    torch.testing.assert_close(logits, logits[:1].expand(10, 10))


def test_a_module_with_its_own_data_and_a_layer_made_in_setup(recipes, strangers):
    state = {"layer.weight": 2 * torch.ones(10, 64), "layer.bias": torch.arange(10.0)}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.6.0"}, "late.ckpt")
    result = recipes(f"temperatures --model strangers.Late --ckpt_path late.ckpt {ONE} --run_dir out")
    assert result.code == 0, result.err
    assert not [text for text in result.warnings if "shuffling" in text]
    logits, labels = saved()
    images = torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)).flatten(1)
    order = logits[:, 0].argsort()
    expected = images.sum(1)
    torch.testing.assert_close(logits[order, 0], expected.sort().values)
    torch.testing.assert_close(logits[:, 9] - logits[:, 0], torch.full((30,), 9.0))
    assert torch.equal(labels[order], (torch.arange(30) % 10)[expected.argsort()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model strangers.Nothing --data Digits", "Nothing has neither a `forward` nor a `network`"),
        ("--model strangers.Network", "Network has no train images: give data"),
        ("--model strangers.Network --data strangers.Data --part val", "Data has no val images"),
        (
            "--model strangers.Scores --data Digits",
            "must give logits (N, C) of 128 images but gives torch.float32 (128,)",
        ),
        ("--model strangers.Network --data strangers.Data --data.kind unknown", "run from -1 to 8"),
        (
            "--model strangers.Network --data strangers.Data --data.kind soft",
            "labels must be class indices (8,) but are",
        ),
        ("--model strangers.Network --data strangers.Data --data.kind dict", "a pair (images, labels) but is dict"),
        ("--model strangers.Network --data strangers.Data --data.kind empty", "the data has no train images"),
        ("--model strangers.Network --data Digits --trainer.devices 2 --trainer.accelerator cpu", "there are 2"),
    ],
)
def test_what_has_no_logits_or_labels_is_refused(recipes, strangers, options, message):
    result = recipes(f"temperatures {options} {ONE} --run_dir out")
    assert result.code == 2
    assert message in result.err
    assert not Path("out").exists()


def test_by_default_the_grid_is_the_authors(recipes, command):
    assert recipes(command).code == 0
    pairs = [(row["tau_true"], row["tau_wrong"]) for row in written(Path("out"))]
    assert pairs == [(true, wrong) for true in range(1, 7) for wrong in range(1, 6)]


def test_without_matplotlib_it_says_how_to_get_a_plot(recipes, command, monkeypatch):
    monkeypatch.setattr(temperatures_command, "find_spec", lambda name: None)
    result = recipes(f"{command} --tau_true [4] --tau_wrong [2]")
    assert result.code == 0
    assert "pip install 'lightning-recipes[plots]'" in result.out
    assert not (Path("out") / "temperatures.png").exists()


def test_the_logits_serve_global_labels(recipes, command):
    assert recipes(command).code == 0
    result = recipes(
        "fit TINY --model.objective Distillation --model.objective.teacher teacher/checkpoints/best.ckpt"
        " --model.objective.loss GlobalLabels --model.objective.loss.logits out/logits.safetensors"
    )
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--tau_true []", "tau_true must hold positive temperatures"),
        ("--tau_wrong [0]", "tau_wrong must hold positive temperatures"),
        ("--part test", "part: expected"),
        ("--tau_wrong 2", "tau_wrong: expected list, as in [2] but got 2"),
        ("--run_dir teacher", "teacher holds a run already"),
        ("--model.network_args.width 8", "best.ckpt belongs to another network"),
        ("--ckpt_path teacher/none.ckpt", "ckpt_path teacher/none.ckpt is not a file"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(recipes, command, options, message):
    result = recipes(f"{command} {options}")
    assert result.code == 2
    assert message in result.error
    assert not Path("out").exists()
