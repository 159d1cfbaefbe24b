"""Runs as other projects write them: resumed from plain checkpoints, with own shards, short epochs or own schedules."""

from __future__ import annotations

import pytest
import torch
from foreign import Stranger, loader
from helpers import trainer
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_recipes.callbacks import EpsilonGreedy, InfoBatch, RandomSubset, SeTa
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.sample_weighting import SampleWeighting
from timm.scheduler import CosineLRScheduler
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

SIZE = 40
LOSSES = torch.linspace(0.1, 4.0, SIZE)


class Known(LightningModule):
    """The loss of sample i is known."""

    def __init__(self, *, vector: bool = True) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(()))
        self.vector = vector

    def training_step(self, batch, batch_idx):
        losses = LOSSES[batch] + 0 * self.value
        return losses if self.vector else losses.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Losing(Stranger):
    """Reads itself from its own loader."""

    def train_dataloader(self):
        return loader(SIZE, 4)


def checkpoints(folder, **options):
    return ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **options)


class Seen(InfoBatch):
    def teardown(self, trainer, pl_module, stage):
        self.last = self.memory["scores"].clone()
        super().teardown(trainer, pl_module, stage)


@pytest.mark.parametrize("before", [None, SeTa])
def test_a_checkpoint_of_another_rule_or_none_credits_each_loss_to_its_sample(before, tmp_path):
    callbacks = [checkpoints(tmp_path, every_n_train_steps=2), *([before(delta=1.0)] if before else [])]
    first = trainer(max_epochs=1, callbacks=callbacks, enable_checkpointing=True)
    first.fit(Known(vector=before is not None), loader(SIZE, 8))
    seen = Seen(delta=1.0)
    trainer(max_epochs=2, callbacks=[seen]).fit(Known(), loader(SIZE, 8), ckpt_path=tmp_path / "step=2.ckpt")
    scored = seen.last.isfinite()
    assert scored.sum() > SIZE // 2
    torch.testing.assert_close(seen.last[scored], LOSSES[scored])


@pytest.mark.parametrize("reload", [0, 1])
def test_a_decision_outlives_a_resume_and_a_new_loader(reload, tmp_path):
    def run(checkpoint=None, *callbacks):
        rule = EpsilonGreedy(0.5, epsilon=0.4, every=3)
        options = {"enable_checkpointing": bool(callbacks), "reload_dataloaders_every_n_epochs": reload}
        model = Losing(SIZE, lr=0.5)
        run = trainer(max_epochs=6, callbacks=[rule, *callbacks], **options)
        run.fit(model, ckpt_path=checkpoint)
        return model.value.detach()

    whole = run(None, checkpoints(tmp_path, every_n_train_steps=5))
    for step in (15, 20, 25):
        assert torch.equal(run(tmp_path / f"step={step}.ckpt"), whole), step


@pytest.mark.parametrize("when", [{"every_n_epochs": 1}, {"every_n_train_steps": 1}])
def test_an_epoch_of_one_batch_does_not_shorten_the_next(when, tmp_path):
    def run(checkpoint=None, *callbacks):
        model = Stranger(24)
        run = trainer(max_epochs=6, callbacks=[InfoBatch(0.7), *callbacks], enable_checkpointing=bool(callbacks))
        run.fit(model, loader(24, 16), DataLoader([0]), ckpt_path=checkpoint)
        return model.value.detach()

    whole = run(None, checkpoints(tmp_path, **when))
    saved = sorted(tmp_path.iterdir())
    assert len(saved) > 4
    for checkpoint in saved:
        assert torch.equal(run(checkpoint), whole), checkpoint.name


def test_losses_of_other_rows_than_the_batchs_are_refused_in_the_first_batch():
    class TwoLosses(SampleWeighting, LightningModule):
        """Reduces the losses of 2 N rows, then of N, as a GAN does."""

        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.layer = torch.nn.Linear(1, 1)
            self.steps = 0

        def training_step(self, batch, batch_idx):
            self.steps += 1
            losses = self.layer(torch.cat([batch, batch])[:, None].float())[:, 0]
            self.reduce(losses)
            self.manual_backward(self.reduce(losses[: len(batch)]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    model = TwoLosses()
    with pytest.raises(InputError, match="InfoBatch"):
        trainer(max_epochs=30, callbacks=[InfoBatch(warmup_epochs=5)]).fit(model, loader())
    assert model.steps == 1


class Skips(Known):
    def training_step(self, batch, batch_idx):
        return None if batch_idx == 2 else super().training_step(batch, batch_idx)


def test_samples_of_a_step_that_returns_none_get_no_score():
    seen = Seen()
    trainer(max_epochs=1, callbacks=[seen]).fit(Skips(), loader(SIZE, 8))
    scored = seen.last.isfinite()
    assert int(scored.sum()) == SIZE - 8
    torch.testing.assert_close(seen.last[scored], LOSSES[scored])


@pytest.mark.parametrize("rescale", [False, True])
def test_a_step_that_returns_none_needs_no_losses(rescale):
    run = trainer(max_epochs=2, callbacks=[RandomSubset(0.5, rescale=rescale)])
    run.fit(Skips(), loader(SIZE, 8))
    assert run.global_step == 6


def test_own_shards_are_refused():
    run = trainer(max_epochs=1, callbacks=[InfoBatch()], use_distributed_sampler=False)
    type(run).world_size, world_size = property(lambda self: 2), type(run).world_size
    try:
        with pytest.raises(InputError, match="use_distributed_sampler"):
            run.fit(Known(), loader(SIZE, 8))
    finally:
        type(run).world_size = world_size


def test_a_stock_batch_sampler_is_served():
    data = range(SIZE)
    seen = Seen(delta=1.0)
    batches = BatchSampler(RandomSampler(data), 8, drop_last=False)
    trainer(max_epochs=2, callbacks=[seen]).fit(Known(), DataLoader(data, batch_sampler=batches))
    torch.testing.assert_close(seen.last, LOSSES)


@pytest.mark.parametrize("callback", [None, InfoBatch])
def test_a_module_that_steps_its_schedule_by_global_step_is_warned(callback, recwarn):
    class ByStep(Known):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            schedule = CosineLRScheduler(optimizer, t_initial=10, t_in_epochs=False)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

        def lr_scheduler_step(self, scheduler, metric):
            scheduler.step_update(num_updates=self.global_step)

    trainer(max_epochs=2, callbacks=[callback()] if callback else []).fit(
        ByStep(vector=callback is not None), loader(SIZE, 8)
    )
    warned = [str(warning.message) for warning in recwarn if "global_step" in str(warning.message)]
    assert len(warned) == (callback is not None)


def test_a_score_equal_to_a_percentile_lies_below_it():
    """100 of 400 zeros stay, with weight 4, as in the released code; of the others 375."""
    callback = InfoBatch([0.75, 0.5], percentiles=[20, 85], seed=0)
    callback._trainer = trainer(max_epochs=100)
    callback._take_over(DataLoader(range(1000), 10, shuffle=True))
    scores = torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 0.01
    scores[:400] = 0
    indices, weights = callback.decide(scores, 5)
    zeros = indices < 400
    assert (int(zeros.sum()), len(indices)) == (100, 475)
    assert weights[zeros].unique().tolist() == [4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_scores_are_float32_whatever_the_default_type(dtype):
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        seen = Seen(delta=1.0)
        trainer(max_epochs=2, callbacks=[seen]).fit(Known(), loader(SIZE, 8))
    finally:
        torch.set_default_dtype(default)
    assert seen.last.dtype == torch.float32
    torch.testing.assert_close(seen.last, LOSSES)
