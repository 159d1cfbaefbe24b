"""Every shipped overlay does what it says, for a step or two on the digits."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning_recipes.callbacks import AWP, UCB, EpsilonGreedy, InfoBatch, RandomSubset, SeTa
from lightning_recipes.modules.losses import KD
from lightning_recipes.modules.objectives import Distillation
from lightning_recipes.recipes.cli import catalog


@pytest.fixture
def fitted(fitted):
    """Two steps instead of five an epoch."""
    return lambda options: fitted(f"--trainer.limit_train_batches 2 {options}")


SELECTIONS = {
    "infobatch": InfoBatch,
    "random_subset": RandomSubset,
    "ucb": UCB,
    "epsilon_greedy": EpsilonGreedy,
    "seta": SeTa,
}


def test_there_is_a_test_for_every_overlay():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(catalog.names("overlays")) <= tested | set(SELECTIONS)


@pytest.mark.parametrize("overlay", SELECTIONS)
def test_overlays_that_select_samples(fitted, overlay):
    cli, result = fitted(f"-c {overlay} --trainer.callbacks.prune_ratio 0.125")
    (selection,) = [c for c in cli.trainer.callbacks if isinstance(c, SELECTIONS[overlay])]
    assert getattr(selection, "prune_ratio", None) == 0.125 or selection.prune_ratios == [0.125]
    assert "forward passes saved" in result.out
    assert "prune_ratio: 0.125" in (result.run / "recipe.yaml").read_text()


def test_bf16(fitted):
    cli, _ = fitted("-c bf16")
    assert cli.trainer.precision == "bf16-mixed"
    assert {p.dtype for p in cli.model.parameters()} == {torch.float32}


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_autoattack(fitted, recipes):
    pytest.importorskip("pyautoattack")
    _, result = fitted("-c autoattack --trainer.callbacks.images 10")
    assert result.code == 0
    done = recipes(f"test -c {result.run}/recipe.yaml --ckpt_path {result.run}/checkpoints/best.ckpt")
    assert "on 10 test images" in done.out


def test_awp(fitted):
    cli, _ = fitted("-c awp --trainer.callbacks.gamma 0.02")
    (callback,) = [c for c in cli.trainer.callbacks if isinstance(c, AWP)]
    assert callback.gamma == 0.02


def test_compile(fitted):
    cli, _ = fitted("-c compile --trainer.limit_train_batches 1 --trainer.limit_val_batches 0")
    assert cli.model.network._compiled_call_impl is not None


def test_debug(fitted):
    cli, _ = fitted("-c debug")
    assert cli.trainer.global_step == 3
    assert cli.trainer._detect_anomaly
    assert list(Path.cwd().iterdir()) == []


def test_ddp(recipes):
    """Two processes are started in another test; here the settings must be right."""
    assert "strategy: ddp" in recipes("show ddp").out


def test_ema(fitted):
    cli, result = fitted("-c ema")
    (averaging,) = [c for c in cli.trainer.callbacks if isinstance(c, EMAWeightAveraging)]
    best = torch.load(result.run / "checkpoints/best.ckpt")["state_dict"]
    last = torch.load(result.run / "checkpoints/last.ckpt")
    name = next(name for name in best if name.endswith("weight"))
    averaged = dict(averaging._average_model.module.state_dict())[name]
    assert torch.equal(best[name], averaged)
    assert torch.equal(last["state_dict"][name], averaged)
    assert not torch.equal(last["current_model_state"][name], averaged)


def test_fast(fitted):
    cli, _ = fitted("--trainer.max_epochs 3 --trainer.limit_train_batches 1 -c fast")
    assert cli.trainer.max_epochs == 3  # the line wins
    assert "max_epochs: 10" in catalog.find("fast").read_text()


def test_teacher(fitted):
    _, first = fitted("--name first")
    teacher = first.run / "checkpoints/best.ckpt"
    cli, _ = fitted(f"-c teacher --model.objective.teacher {teacher}")
    assert isinstance(cli.model.objective, Distillation)
    assert isinstance(cli.model.objective.losses[0], KD)
    weights = torch.load(teacher)["state_dict"]
    assert torch.equal(cli.model.objective.teacher.network.classifier.weight, weights["network.classifier.weight"])


def test_tensorboard(fitted):
    pytest.importorskip("tensorboard")
    _, result = fitted("-c tensorboard")
    assert list(result.run.rglob("events.out.tfevents*"))
    assert (result.run / "metrics.csv").is_file()
    assert [path.name for path in Path.cwd().iterdir()] == ["runs"]


def test_wandb(fitted, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb = pytest.importorskip("wandb")
    updated = {}
    monkeypatch.setattr(wandb.sdk.wandb_summary.Summary, "update", lambda self, values: updated.update(values))
    _, result = fitted("-c wandb")
    assert (result.run / "metrics.csv").is_file()
    (copy,) = (result.run / "wandb").glob("offline-run-*/files/recipe.yaml")
    assert copy.read_text() == (result.run / "recipe.yaml").read_text()
    figures = json.loads((result.run / "summary.json").read_text())
    assert figures["versions"].keys() >= {"lightning-recipes", "torch", "lightning"}
    assert "\n# with lightning-recipes " in copy.read_text()
    assert updated["best val/accuracy"] == figures["best val/accuracy"]
    assert {"samples", "wall seconds", "peak memory MiB"} <= updated.keys()
    assert [path.name for path in Path.cwd().iterdir()] == ["runs"]


def test_a_test_goes_to_the_wandb_run_of_the_training(fitted, recipes, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    _, result = fitted("-c wandb")
    (run,) = (result.run / "wandb").glob("offline-run-*")
    done = recipes(f"test -c {result.run}/recipe.yaml --ckpt_path {result.run}/checkpoints/best.ckpt")
    assert done.code == 0
    (again,) = (result.run / "test").rglob("offline-run-*")
    assert again.name.rpartition("-")[2] == run.name.rpartition("-")[2]
