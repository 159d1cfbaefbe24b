"""A run that goes on from a checkpoint, written in whatever hook, is the run that was not interrupted."""

import pytest
import torch
from helpers import Snapshots, trainer
from lightning.pytorch.callbacks import (
    Checkpoint,
    EarlyStopping,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
)
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers.logger import Logger
from lightning_recipes.callbacks import InfoBatch
from lightning_recipes.datamodules import Digits
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.recipes import Classification
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import StepLR


class Rows(Logger):
    """Keeps what it is given."""

    name = version = "rows"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step):
        self.rows.append((step, metrics))

    def log_hyperparams(self, *args):
        pass


class Points(Snapshots, Checkpoint):
    """Saves where Lightning's own checkpoint callbacks do, and how many rows were logged before."""

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["rows"] = len(trainer.logger.rows)


def sgd(parameters):
    return SGD(parameters, lr=0.1, momentum=0.9)


def fit(folder, *, ckpt_path=None, monitor="val/loss", more=(), data=None, optimizer=sgd, scheduler=None, **options):
    torch.manual_seed(0 if ckpt_path is None else 123)
    model = Classification(
        "convnet",
        num_classes=10,
        in_chans=1,
        image_size=8,
        network_args={"depth": 1, "width": 4},
        optimizer=optimizer,
        lr_scheduler=scheduler or (lambda optimizer: ReduceLROnPlateau(optimizer, monitor, patience=0, threshold=0.5)),
    )
    log = Rows()
    folder.mkdir()
    callbacks = [*more, Points(folder)]
    run = trainer(
        **{"max_epochs": 3, "logger": log, "log_every_n_steps": 1, "callbacks": callbacks, "enable_checkpointing": True}
        | options
    )
    run.fit(model, Digits(**(data or {"batch_size": 32, "subset": 13})), ckpt_path=ckpt_path)
    return log.rows


def differences(one, other, name=""):
    """Names of the parts in which two checkpoints differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = one.keys() | other.keys()
        return [part for key in names for part in differences(one.get(key), other.get(key), f"{name}.{key}")]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return differences(dict(enumerate(one)), dict(enumerate(other)), name)
    tensors = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    same = torch.equal(one.nan_to_num(), other.nan_to_num()) if tensors else one == other
    return [] if same else [f"{name}: {one} {other}"]


def read(path):
    checkpoint = torch.load(path, weights_only=True)
    loops = checkpoint.pop("loops")["fit_loop"]
    batches, epochs = loops["epoch_loop.batch_progress"]["total"], loops["epoch_progress"]["total"]
    counts = {"batches": batches["processed"], "epochs": epochs["processed"], "begun": epochs["ready"]}
    return {**checkpoint, "counts": counts | loops["epoch_loop.state_dict"]}


OPTIONS = {
    "plain": dict,
    "validation within": lambda: {"val_check_interval": 2},
    "validation every other epoch": lambda: {"check_val_every_n_epoch": 2, "max_epochs": 4, "monitor": "train/loss"},
    "no validation": lambda: {"limit_val_batches": 0, "monitor": "train/loss"},
    "accumulation": lambda: {"accumulate_grad_batches": 2},
    "accumulation from epoch 1": lambda: {"more": [GradientAccumulationScheduler({1: 2})]},
    "early stopping": lambda: {"more": [EarlyStopping("val/loss", patience=2, min_delta=10.0)], "max_epochs": 9},
    "steps": lambda: {"max_steps": 11, "max_epochs": -1},
    "steps of whole epochs": lambda: {"max_steps": 12, "max_epochs": -1},
    "InfoBatch": lambda: {"more": [InfoBatch()]},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_every_checkpoint_after_a_resume_is_that_of_the_whole_run(tmp_path, options):
    """And so a resumed run that is resumed again, however often, is the whole run too."""
    rows = fit(tmp_path / "whole", **OPTIONS[options]())
    whole = {path.name: read(path) for path in sorted((tmp_path / "whole").glob("*.ckpt"))}
    assert len(whole) > 8
    different = []
    for name, start in whole.items():
        if start["lightning_recipes.position"]["gradients_are_lost"]:
            continue
        folder = tmp_path / name
        again = fit(folder, ckpt_path=tmp_path / "whole" / name, **OPTIONS[options]())
        later = {path.name: read(path) for path in folder.glob("*.ckpt")}
        for point, checkpoint in later.items():
            checkpoint["rows"] += start["rows"]
            different += [f"{name} > {point}: {part}" for part in differences(whole[point], checkpoint)]
        different += [f"{name} row {part}" for part in differences(rows[start["rows"] :], again)]
    assert not different, "\n".join(text[:200] for text in different[:20])


def test_an_epoch_cut_short_by_max_steps_is_finished_by_a_longer_run(tmp_path):
    fit(tmp_path / "whole", max_steps=11, max_epochs=-1)
    fit(tmp_path / "short", max_steps=6, max_epochs=-1)
    fit(tmp_path / "rest", max_steps=11, max_epochs=-1, ckpt_path=tmp_path / "short/1-6-epoch.ckpt")
    whole, rest = (read(tmp_path / name / "2-11-epoch.ckpt") for name in ("whole", "rest"))
    assert not differences(whole["state_dict"], rest["state_dict"])
    assert whole["counts"] == rest["counts"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"more": [StochasticWeightAveraging(0.1, swa_epoch_start=1)]}, "StochasticWeightAveraging cannot go on"),
        ({"overfit_batches": 3}, "overfit_batches cannot go on"),
    ],
)
def test_what_cannot_go_on_within_an_epoch_is_refused(tmp_path, options, reason):
    fit(tmp_path / "whole", **options)
    with pytest.raises(InputError, match=f"after batch 2 of epoch 0, within which .*{reason}"):
        fit(tmp_path / "again", ckpt_path=tmp_path / "whole/0-2-batch.ckpt", **options)


def test_time_that_is_used_up_is_refused(tmp_path):
    fit(tmp_path / "whole", max_time={"seconds": 3600})
    with pytest.raises(InputError, match="max_time: the run that goes on has trained for"):
        fit(tmp_path / "again", max_time={"microseconds": 1}, ckpt_path=tmp_path / "whole/0-2-batch.ckpt")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch_size": 16}, "of all processes together, of 32, which is 16 now"),
        ({"seed": 3}, "the seed 0, which is 3 now"),
    ],
)
def test_other_samples_within_an_epoch_are_refused(tmp_path, change, reason):
    fit(tmp_path / "whole")
    data = {"batch_size": 32, "subset": 13, **change}
    with pytest.raises(InputError, match=reason):
        fit(tmp_path / "again", data=data, ckpt_path=tmp_path / "whole/1-6-batch.ckpt")
    fit(tmp_path / "later", data=data, ckpt_path=tmp_path / "whole/1-8-epoch.ckpt")


def test_the_state_of_another_optimizer_or_schedule_is_refused(tmp_path):
    fit(tmp_path / "whole", optimizer=Adam, max_epochs=1)
    last = tmp_path / "whole/0-4-epoch.ckpt"
    with pytest.raises(InputError, match="optimizer AdamW cannot go on from the checkpoint, whose optimizer is Adam"):
        fit(tmp_path / "other", optimizer=AdamW, ckpt_path=last)
    with pytest.raises(
        InputError, match=r"lr_scheduler StepLR cannot go on .* whose lr_scheduler is ReduceLROnPlateau"
    ):
        fit(tmp_path / "steps", optimizer=Adam, scheduler=lambda optimizer: StepLR(optimizer, 1), ckpt_path=last)


def test_options_that_the_checkpoint_replaces_are_named(tmp_path):
    fit(tmp_path / "whole", max_epochs=1)
    with pytest.warns(UserWarning, match=r"as in the checkpoint, which replaces lr 0.5 by 0.1, nesterov True by False"):
        fit(
            tmp_path / "other",
            optimizer=lambda parameters: SGD(parameters, lr=0.5, momentum=0.9, nesterov=True),
            ckpt_path=tmp_path / "whole/0-4-epoch.ckpt",
        )
