"""What a checkpoint brings into a run, and checkpoints that cannot be used."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning_recipes.datamodules import Digits
from lightning_recipes.modules.networks import create_network
from lightning_recipes.recipes import Classification


@pytest.fixture
def run(recipes):
    result = recipes("fit TINY --trainer.max_epochs 2")
    assert result.code == 0, result.err
    return result.run


def test_command_line_beats_the_hyper_parameters_of_a_checkpoint(recipes, run):
    result = recipes(
        f"fit TINY --ckpt_path {run}/checkpoints/last.ckpt --trainer.max_epochs 3"
        " --model.optimizer.lr 0.5 --model.mixup 0.3 --model.lr_scheduler null"
    )
    assert result.code == 0, result.err
    known = torch.load(result.run / "checkpoints/last.ckpt")["hyper_parameters"]
    assert known["mixup"] == 0.3
    assert known["optimizer"]["init_args"]["lr"] == 0.5
    saved = yaml.safe_load((result.run / "recipe.yaml").read_text())["model"]["init_args"]
    assert saved["mixup"] == 0.3
    assert saved["optimizer"]["init_args"]["lr"] == 0.5


@pytest.mark.parametrize(
    "options",
    [
        "--model.network_args.width 8",
        "--model.network_args.depth 2",
        "--model.network cifar_resnet8 --model.network_args null",
    ],
)
@pytest.mark.parametrize("command", ["fit", "test", "export"])
def test_checkpoint_of_another_network(recipes, run, command, options):
    before = sorted(Path.cwd().rglob("*"))
    result = recipes(f"{command} TINY --ckpt_path {run}/checkpoints/last.ckpt {options}")
    assert result.code == 2
    assert "last.ckpt belongs to another network" in result.error
    assert "the first is network." in result.error
    assert "recipe.yaml beside the checkpoint's folder" in result.error
    assert sorted(Path.cwd().rglob("*")) == before


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "weights"])
def test_checkpoint_that_cannot_be_read(recipes, run, kind):
    whole = (run / "checkpoints/last.ckpt").read_bytes()
    file = Path("broken.ckpt")
    if kind == "weights":
        torch.save({"layer.weight": torch.zeros(1)}, file)
    else:
        file.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"hello", "empty": b""}[kind])
    before = sorted(Path.cwd().rglob("*"))
    result = recipes("fit TINY --ckpt_path broken.ckpt")
    assert result.code == 2
    assert "ckpt_path broken.ckpt cannot be read as a checkpoint" in result.error
    assert sorted(Path.cwd().rglob("*")) == before


def test_missing_checkpoint_names_those_beside_it(recipes, run):
    result = recipes(f"test TINY --ckpt_path {run}/checkpoints/epoch7.ckpt")
    assert result.code == 2
    assert f"there is {run}/checkpoints/best.ckpt, {run}/checkpoints/last.ckpt" in result.error


LOAD = """
import torch
from lightning_recipes.modules.networks import create_network
from lightning_recipes.recipes import Classification

module = create_network("convnet", num_classes=10, in_chans=1, network_args={"depth": 1, "width": 4}, image_size=8)
for path, arguments in {"line.ckpt": {}, "name.ckpt": {}, "module.ckpt": {"network": module}}.items():
    model = Classification.load_from_checkpoint(path, **arguments).eval()
    torch.save(model(torch.ones(3, 1, 8, 8)), path + ".outputs")
"""


def tiny_network():
    return create_network("convnet", num_classes=10, in_chans=1, network_args={"depth": 1, "width": 4}, image_size=8)


def train(model):
    """Two steps with a plain trainer, as a script would."""
    trainer = Trainer(
        max_epochs=1, limit_train_batches=2, logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(model, datamodule=Digits(batch_size=16))
    return trainer


def test_checkpoints_of_command_line_and_scripts_load_in_a_fresh_process(run):
    shutil.copy(run / "checkpoints/last.ckpt", "line.ckpt")
    by_name = {"network": "convnet", "network_args": {"depth": 1, "width": 4}, "image_size": 8}
    models = {
        "line": Classification.load_from_checkpoint("line.ckpt"),
        "name": Classification(num_classes=10, in_chans=1, **by_name),
        "module": Classification(tiny_network(), num_classes=10, in_chans=1),
    }
    for name in ("name", "module"):
        train(models[name]).save_checkpoint(f"{name}.ckpt")
    subprocess.run([sys.executable, "-c", LOAD], check=True)
    for name, model in models.items():
        with torch.no_grad():
            assert torch.equal(torch.load(f"{name}.ckpt.outputs"), model.eval()(torch.ones(3, 1, 8, 8)))


def test_checkpoint_of_a_script_is_used_by_the_command_line(recipes):
    model = Classification(tiny_network(), num_classes=10, in_chans=1)
    trainer = train(model)
    trainer.save_checkpoint("script.ckpt")
    result = recipes("test TINY --ckpt_path script.ckpt --run_dir out")
    assert result.code == 0, result.err
    (expected,) = trainer.test(model, datamodule=Digits(batch_size=16), verbose=False)
    assert json.loads(Path("out/metrics.json").read_text()) == expected


def best_of(folder):
    figures = json.loads((folder / "summary.json").read_text())
    return figures["best checkpoint"], figures["best val/accuracy"]


@pytest.mark.parametrize("change", ["moved", "truncated"])
def test_the_best_value_is_that_of_the_best_checkpoint(recipes, run, change):
    """A run goes on from a folder that was moved, or whose best checkpoint was half written when it was killed."""
    last = run / "checkpoints/last.ckpt"
    if change == "moved":
        last = run.rename("moved") / "checkpoints/last.ckpt"
    else:
        with (run / "checkpoints/best.ckpt").open("r+b") as file:
            file.truncate(1000)
    result = recipes(
        f"fit TINY --trainer.max_epochs 3 --ckpt_path {last} --model.optimizer.lr 3 --data.label_noise 0.9"
    )
    assert result.code == 0, result.err
    assert any("best checkpoint so far" in text for text in result.warnings) == (change == "truncated")
    best, value = best_of(result.run)
    assert recipes(f"validate -c {result.run}/recipe.yaml --ckpt_path {best} --run_dir v").code == 0
    assert json.loads(Path("v/metrics.json").read_text())["val/accuracy"] == pytest.approx(value)


def test_the_best_value_is_that_of_a_checkpoint_callback_of_ones_own(recipes):
    Path("own.yaml").write_text(
        "trainer:\n  callbacks+:\n  - class_path: ModelCheckpoint\n"
        "    init_args: {monitor: val/accuracy, mode: max, filename: top, save_last: true}\n"
    )
    first = recipes("fit TINY -c own.yaml --trainer.max_epochs 2")
    last = next(first.run.rglob("last.ckpt"))
    result = recipes(f"fit TINY -c own.yaml --trainer.max_epochs 3 --ckpt_path {last} --data.label_noise 0.9")
    best, value = best_of(result.run)
    assert recipes(f"validate -c {result.run}/recipe.yaml --ckpt_path {best} --run_dir v").code == 0
    assert json.loads(Path("v/metrics.json").read_text())["val/accuracy"] == pytest.approx(value)


def test_a_full_disk_ends_a_run_in_one_line_and_keeps_the_checkpoint_before(recipes, monkeypatch):
    save, saved = torch.save, []

    def fill(checkpoint, stream):
        saved.append(1)
        if len(saved) > 2:
            stream.write(b"half")
            raise OSError(28, "No space left on device")
        save(checkpoint, stream)

    monkeypatch.setattr(torch, "save", fill)
    result = recipes("fit TINY --trainer.max_epochs 2 --run_dir full")
    assert result.code == 1
    assert "could not be written (No space left on device)" in result.error
    folder = Path("full/checkpoints")
    assert sorted(file.name for file in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert all(torch.load(file)["epoch"] == 0 for file in folder.iterdir())
