"""A resumed run reads the batches, augmentation included, that an uninterrupted one would have read."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning_recipes.datamodules import Digits, ImageFolder
from PIL import Image

EPOCHS = 3


class Recorder(pl.LightningModule):
    """Keeps every training batch, and the number of steps taken before it."""

    def __init__(self, reads_length=False):
        super().__init__()
        self.reads_length = reads_length
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches = {}

    def training_step(self, batch, batch_idx):
        images, labels = batch
        assert self.global_step not in self.batches
        self.batches[self.global_step] = (images.clone(), labels.clone())
        return self.weight * images.mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        if self.reads_length:
            assert self.trainer.estimated_stepping_batches == EPOCHS * 3
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveEverywhere(pl.Callback):
    """Writes a checkpoint at each place where Lightning's own callbacks may write one."""

    def __init__(self, folder):
        self.folder = folder
        self.paths = {}

    def save(self, trainer, hook):
        if not trainer.sanity_checking:
            path = self.folder / f"{hook}-{trainer.global_step}.ckpt"
            trainer.save_checkpoint(path)
            self.paths[hook, trainer.global_step] = path

    def on_train_batch_end(self, trainer, *_):
        self.save(trainer, "batch_end")

    def on_validation_end(self, trainer, _):
        self.save(trainer, "validation_end")

    def on_train_epoch_end(self, trainer, _):
        self.save(trainer, "epoch_end")

    def on_exception(self, trainer, *_):
        self.save(trainer, "exception")


def fit(datamodule, callbacks=(), ckpt_path=None, reads_length=False, **options):
    options = {"max_epochs": EPOCHS} | options
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
    module = Recorder(reads_length)
    trainer.fit(module, datamodule, ckpt_path=ckpt_path, weights_only=False)
    return module.batches


def digits(**options):
    return Digits(**{"batch_size": 16, "subset": 5, "crop_padding": 1, "flip": True, "cutout": 2, "seed": 3} | options)


def resumes(checkpoints, batches, make, **options):
    """Names of the checkpoints from which the rest of the batches is not what it was."""
    wrong = []
    for name, path in checkpoints.items():
        expected = {step: batch for step, batch in batches.items() if step >= name[1]}
        resumed = fit(make(), ckpt_path=path, **options)
        if resumed.keys() != expected.keys() or not all(
            torch.equal(a, b) for step in expected for a, b in zip(expected[step], resumed[step], strict=True)
        ):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 9),
        ({"val_check_interval": 2}, 9),
        ({"limit_train_batches": 2}, 6),
        ({"check_val_every_n_epoch": 2}, 9),
        ({"accumulate_grad_batches": 1, "reload_dataloaders_every_n_epochs": 1}, 9),
        # From the end of an epoch of a run with max_steps, Lightning 2.6 counts one epoch too many.
        ({"max_epochs": -1, "max_steps": 8}, 8),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_resumes_from_a_checkpoint_written_anywhere(tmp_path, options, steps):
    save = SaveEverywhere(tmp_path)
    batches = fit(digits(), [save], **options)
    assert len(batches) == steps
    checkpoints = {
        name: path for name, path in save.paths.items() if "max_steps" not in options or name[0] != "epoch_end"
    }
    assert resumes(checkpoints, batches, digits, **options) == []


def test_resumes_where_an_exception_struck(tmp_path):
    batches = fit(digits())
    save = SaveEverywhere(tmp_path)

    class Crash(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 4:
                raise KeyError("crash")

    with pytest.raises(KeyError):
        fit(digits(), [Crash(), save])
    checkpoints = {("exception", 4): save.paths["exception", 4]}
    assert resumes(checkpoints, batches, digits) == []


def image_folder(root, parts, size=(8, 8)):
    """Writes random images into ``root/<part>/<class>/``."""
    generator = np.random.default_rng(0)
    for part, number in parts.items():
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for index in range(number):
                pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")


def folder(root, num_workers):
    return ImageFolder(
        str(root), image_size=8, batch_size=4, num_workers=num_workers, val_fraction=0.2, color_jitter=0.4, seed=3
    )


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("reads_length", [False, True])
def test_resumes_with_workers_and_a_length_read_before_the_loops_are_restored(tmp_path, num_workers, reads_length):
    image_folder(tmp_path / "data", {"train": 8})

    def make():
        return folder(tmp_path / "data", num_workers)

    save = SaveEverywhere(tmp_path)
    batches = fit(make(), [save], reads_length=reads_length)
    assert len(batches) == 9
    chosen = [("batch_end", 3), ("batch_end", 5), ("validation_end", 6), ("epoch_end", 6)]
    checkpoints = {name: save.paths[name] for name in chosen}
    assert resumes(checkpoints, batches, make, reads_length=reads_length) == []


def test_a_second_fit_starts_at_the_beginning(tmp_path):
    save = SaveEverywhere(tmp_path)
    datamodule = digits()
    batches = fit(datamodule, [save])
    fit(datamodule, ckpt_path=save.paths["batch_end", 4])
    again = fit(datamodule)
    assert again.keys() == batches.keys()
    assert torch.equal(again[0][0], batches[0][0])
