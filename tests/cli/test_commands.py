"""fit, validate, test, predict and export, end to end."""

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning_recipes.datamodules import Digits
from lightning_recipes.modules.artifacts.network_file import load_network
from lightning_recipes.recipes import Classification


@pytest.fixture
def trained(recipes):
    result = recipes("fit TINY --trainer.max_epochs 2")
    assert result.code == 0, result.err
    return result


def last_line(result):
    return result.out.strip().splitlines()[-1]


def options(trained):
    return f"-c {trained.run}/recipe.yaml --ckpt_path {trained.run}/checkpoints/best.ckpt"


def only(folder, name):
    (file,) = Path(folder).rglob(name)
    return file


def test_summary_says_what_the_run_did(trained):
    figures = json.loads((trained.run / "summary.json").read_text())
    assert figures["epochs"] == 2
    assert figures["optimizer steps"] == 2 * 5
    assert figures["samples"] == 2 * 5 * 16
    assert figures["trained parameters"] == 4 * 9 + 4 + 2 * 4 + (4 * 4 * 4) * 10 + 10
    assert 0 < figures["wall seconds"] < 60
    assert 0 < figures["cpu seconds"] < 60
    assert figures["training samples per second"] >= figures["samples"] / figures["wall seconds"] - 0.1
    assert 50 < figures["peak memory MiB"] < 20_000
    assert figures["run folder"] == str(trained.run)
    rows = list(csv.DictReader((trained.run / "metrics.csv").open()))
    accuracies = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    assert figures["best val/accuracy"] == max(accuracies)
    assert figures["last val/accuracy"] == accuracies[-1]
    for which in ("best", "last"):
        assert Path(figures[f"{which} checkpoint"]).is_file()
        assert not Path(figures[f"{which} checkpoint"]).is_absolute()
    assert figures.pop("versions").keys() >= {"lightning-recipes", "torch", "lightning"}
    for name, value in figures.items():
        assert name in trained.out
        assert not isinstance(value, str) or value in trained.out


def test_each_epoch_prints_a_line(trained):
    lines = [line for line in trained.out.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert all(name in line for line in lines for name in ("train/loss", "train/accuracy", "val/accuracy", "images/s"))


def test_command_that_fit_prints_measures_the_best_checkpoint(recipes, trained):
    line = last_line(trained)
    assert line.startswith("To test it:  recipes test -c ")
    result = recipes(line.removeprefix("To test it:  recipes "))
    assert result.code == 0, result.err
    assert not [text for text in result.warnings if "ckpt_path" in text]
    metrics = json.loads(only(trained.run / "test", "metrics.json").read_text())
    assert set(metrics) == {"test/loss", "test/accuracy"}

    model = Classification.load_from_checkpoint(trained.run / "checkpoints/best.ckpt").eval()
    data = Digits(batch_size=540)
    data.setup("test")
    (batch,) = data.test_dataloader()
    images, labels = data.on_after_batch_transfer(batch, 0)
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
    assert metrics["test/accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_validate_measures_what_fit_had_measured(recipes, trained):
    assert recipes(f"validate {options(trained)}").code == 0
    metrics = json.loads(only(trained.run / "validate", "metrics.json").read_text())
    figures = json.loads((trained.run / "summary.json").read_text())
    assert metrics["val/accuracy"] == figures["best val/accuracy"]


def test_without_a_checkpoint_there_is_a_warning(recipes, trained):
    result = recipes(f"test -c {trained.run}/recipe.yaml")
    assert result.code == 0
    assert "no --ckpt_path was given: test uses the network as it was built" in result.warnings


def test_predict_writes_class_and_probabilities_of_every_image(recipes, trained):
    result = recipes(f"predict {options(trained)} --data.eval_batch_size 100")
    assert result.code == 0, result.err
    file = only(trained.run / "predict", "predictions.csv")
    assert f"540 predictions written to {file}" in result.err
    rows = list(csv.DictReader(file.open()))
    assert list(rows[0]) == ["file", "class", *"0123456789"]
    assert [row["file"] for row in rows] == [f"test/{index:05d}" for index in range(540)]
    for row in rows:
        probabilities = {name: float(row[name]) for name in "0123456789"}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert row["class"] == max(probabilities, key=lambda name: probabilities[name])


def test_exports_give_the_same_outputs(recipes, trained):
    result = recipes(f"export {options(trained)}")
    assert result.code == 0, result.err
    model = Classification.load_from_checkpoint(trained.run / "checkpoints/best.ckpt").eval()
    for line, suffix in zip(result.out.splitlines(), ("safetensors", "pt2", "onnx"), strict=False):
        assert line.split()[0] == str(only(trained.run / "export", f"network.{suffix}"))
    images = torch.randn(7, 1, 8, 8)
    with torch.no_grad():
        expected = model(images)

    network, facts = load_network(only(trained.run, "network.safetensors"))
    assert torch.equal(network(images), expected)
    assert facts["class_names"] == list("0123456789")
    assert (facts["image_size"], facts["in_chans"], facts["name"]) == (8, 1, "convnet")
    assert facts["mean"] == list(Digits.mean)

    extra = {"facts.json": ""}
    program = torch.export.load(only(trained.run, "network.pt2"), extra_files=extra)
    torch.testing.assert_close(program.module()(images), expected)
    said = json.loads(extra["facts.json"])
    assert said == {name: facts[name] for name in said}
    assert len(said) >= 8


def test_onnx_gives_the_same_outputs(recipes, trained):
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    assert recipes(f"export {options(trained)} --run_dir exported --formats [onnx]").code == 0
    assert [path.name for path in Path("exported").iterdir()] == ["network.onnx"]
    assert not (trained.run / "export").exists()
    model = Classification.load_from_checkpoint(trained.run / "checkpoints/best.ckpt").eval()
    images = torch.randn(7, 1, 8, 8)
    (logits,) = ReferenceEvaluator("exported/network.onnx").run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(images), atol=1e-4, rtol=1e-4)
    facts = {entry.key: json.loads(entry.value) for entry in onnx.load("exported/network.onnx").metadata_props}
    assert facts["class_names"] == list("0123456789")


def test_export_never_overwrites(recipes, trained):
    command = f"export {options(trained)} --run_dir exported --formats [safetensors]"
    assert recipes(command).code == 0
    before = Path("exported/network.safetensors").read_bytes()
    result = recipes(command)
    assert result.code == 2
    assert "exported/network.safetensors exists already" in result.error
    assert Path("exported/network.safetensors").read_bytes() == before
    result = recipes(command.replace("[safetensors]", "onnx"))
    assert "formats: expected list, as in [onnx] but got onnx" in result.error


def test_console_script_runs_the_same(trained):
    """In a process of its own, from a fresh start, as the message of `fit` says."""
    script = Path(sys.executable).with_name("recipes")
    command = shlex.split(last_line(trained).removeprefix("To test it:  recipes "))
    finished = subprocess.run([script, *command], capture_output=True, text=True, check=True)
    assert "test/accuracy" in finished.stdout
    assert finished.stderr.splitlines() == [
        f"Restoring states from the checkpoint path at {trained.run}/checkpoints/best.ckpt",
        f"Loaded model weights from the checkpoint at {trained.run}/checkpoints/best.ckpt",
    ]
