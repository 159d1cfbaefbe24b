"""A resumed run reads the batches, augmentation included, that an uninterrupted one would have read."""

import lightning.pytorch as pl
import pytest
import torch

from lightning_recipes.datamodules import Digits

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
    return Digits(
        **{"batch_size": 16, "subset": 5, "crop_padding": 1, "flip": True, "cutout": 2, "seed": 3} | options
    )


def assert_same(batches, expected):
    assert batches.keys() == expected.keys()
    for step, (images, labels) in expected.items():
        assert torch.equal(batches[step][0], images), step
        assert torch.equal(batches[step][1], labels), step


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"val_check_interval": 2},
        {"max_epochs": -1, "max_steps": 9},
        {"limit_train_batches": 2},
        {"check_val_every_n_epoch": 2},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_resumes_from_a_checkpoint_written_anywhere(tmp_path, options):
    save = SaveEverywhere(tmp_path)
    batches = fit(digits(), [save], **options)
    assert len(batches) == (6 if "limit_train_batches" in options else 9)
    bad = []
    for (hook, step), path in save.paths.items():
        resumed = fit(digits(), ckpt_path=path, **options)
        try:
            assert_same(resumed, {number: batch for number, batch in batches.items() if number >= step})
        except AssertionError as e:
            bad.append((hook, step, sorted(resumed)))
    assert not bad
