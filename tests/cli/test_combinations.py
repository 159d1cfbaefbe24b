"""What the user brings goes together with what every run has."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

OWN = """\
trainer:
  callbacks:
  - class_path: ModelCheckpoint
    init_args: {dirpath: mine, monitor: val/loss, save_last: true}
  - class_path: TQDMProgressBar
  - class_path: EarlyStopping
    init_args: {monitor: val/loss, patience: 1}
  - class_path: LearningRateMonitor
"""


@pytest.fixture
def fitted(fitted):
    """Gives the trainer, the figures of the summary, and the result."""

    def fit(options):
        cli, result = fitted(options)
        return cli.trainer, json.loads((result.run / "summary.json").read_text()), result

    return fit


def kinds(trainer):
    """Names of the callbacks; private ones belong to the data or the model."""
    return [name for callback in trainer.callbacks if not (name := type(callback).__name__).startswith("_")]


def test_defaults(fitted):
    trainer, _, result = fitted("")
    assert sorted(kinds(trainer)) == [
        *("BestAndLast", "ExactResume", "FiniteLoss", "GracefulInterrupt", "ImageProgressBar", "LearningRateMonitor"),
        *("RunSummary", "SaveRecipe"),
    ]
    assert result.warnings == []
    assert result.err == "`Trainer.fit` stopped: `max_epochs=1` reached.\n"


def test_own_callbacks_take_the_place_of_the_defaults(fitted):
    Path("own.yaml").write_text(OWN)
    trainer, figures, _ = fitted("-c own.yaml --trainer.max_epochs 2")
    found = kinds(trainer)
    for kind in ("ModelCheckpoint", "TQDMProgressBar", "EarlyStopping", "LearningRateMonitor"):
        assert found.count(kind) == 1
    assert not {"BestAndLast", "ImageProgressBar"} & set(found)
    assert Path(figures["best checkpoint"]).parent == Path("mine")
    assert figures["last checkpoint"] == "mine/last.ckpt"


def test_early_stopping_is_counted_right(fitted):
    _, figures, _ = fitted(
        "--trainer.max_epochs 9 --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val/loss"
        " --trainer.callbacks.patience 1 --trainer.callbacks.min_delta 100"
    )
    assert figures["epochs"] == 2
    assert figures["optimizer steps"] == 10


def test_no_logger(fitted):
    trainer, _, result = fitted("--trainer.logger false")
    assert trainer.loggers == []
    assert "LearningRateMonitor" not in kinds(trainer)
    assert sorted(path.name for path in result.run.iterdir()) == ["checkpoints", "recipe.yaml", "summary.json"]


def test_no_checkpoints(fitted):
    _, figures, result = fitted("--trainer.enable_checkpointing false")
    assert figures["best checkpoint"] is figures["last checkpoint"] is None
    assert "To test it" not in result.out
    assert not list(Path.cwd().rglob("*.ckpt"))


def test_no_progress_bar(fitted):
    _, _, result = fitted("--trainer.enable_progress_bar false")
    assert "epoch 1" not in result.out


def test_no_validation(fitted):
    _, figures, result = fitted("--trainer.limit_val_batches 0 --trainer.max_epochs 2")
    assert not [name for name in figures if "val/" in name]
    assert figures["best checkpoint"] is None
    assert "--ckpt_path" in result.out
    assert torch.load(figures["last checkpoint"])["global_step"] == 10


def test_steps_instead_of_epochs(fitted):
    _, figures, result = fitted("--trainer.max_epochs null --trainer.max_steps 7 --model.lr_interval step")
    assert result.out.startswith("epoch 1  images/s")
    assert (figures["optimizer steps"], figures["samples"]) == (7, 7 * 16)
    assert torch.load(figures["last checkpoint"])["global_step"] == 7


@pytest.mark.parametrize(
    ("options", "validations"),
    {"--trainer.val_check_interval 0.4": 4, "--trainer.check_val_every_n_epoch 2": 1, "": 2}.items(),
)
def test_rhythm_of_validation(fitted, options, validations):
    _, figures, result = fitted(f"--trainer.max_epochs 2 {options}")
    rows = list(csv.DictReader((result.run / "metrics.csv").open()))
    accuracies = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    assert len(accuracies) == validations
    assert figures["best val/accuracy"] == max(accuracies)
    assert figures["last val/accuracy"] == accuracies[-1]
    assert torch.load(figures["last checkpoint"])["global_step"] == 10


def test_early_stopping_on_what_is_not_logged(recipes):
    result = recipes("fit TINY --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val/lss")
    assert result.code == 2
    assert "metric `val/lss` which is not available" in result.error
    assert "`val/loss`" in result.error


def test_last_checkpoint_is_the_last_even_if_it_is_not_the_best(fitted):
    _, figures, _ = fitted("--trainer.max_epochs 3 --model.optimizer.lr 0")
    assert torch.load(figures["best checkpoint"])["global_step"] == 5
    assert torch.load(figures["last checkpoint"])["global_step"] == 15


def test_averaged_weights_are_what_test_measures(recipes, fitted):
    """The moving average of the first steps is near the start, far from the trained weights."""
    _, figures, result = fitted("-c ema --trainer.max_epochs 4")
    plain = fitted("--trainer.max_epochs 4")[1]
    assert plain["best val/accuracy"] > figures["best val/accuracy"] + 0.2
    tested = recipes(f"validate -c {result.run}/recipe.yaml --ckpt_path {figures['best checkpoint']} --run_dir v")
    assert tested.code == 0, tested.err
    assert json.loads(Path("v/metrics.json").read_text())["val/accuracy"] == figures["best val/accuracy"]


def test_two_processes_share_one_run_folder(recipes):
    """As from a shell: the second process is started by the first."""
    script = str(Path(sys.executable).with_name("recipes"))
    options = "-c digits/supervised -c ddp --trainer.devices 2 --trainer.accelerator cpu --trainer.max_epochs 1"
    environment = {name: value for name, value in os.environ.items() if name != "RECIPES_RUN_DIR"}
    finished = subprocess.run(
        [script, "fit", *options.split(), "--data.subset", "8", "--data.batch_size", "8"],
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr
    (folder,) = Path("runs/digits/supervised+ddp").iterdir()
    figures = json.loads((folder / "summary.json").read_text())
    assert figures["samples"] == 80
    assert figures["optimizer steps"] == 5
    assert finished.stdout.count("epoch 1/1") == 1
    assert finished.stdout.count("To test it") == 1
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    result = recipes(finished.stdout.split("To test it:  recipes ")[1].strip() + " --trainer.devices 1")
    assert result.code == 0, result.err
