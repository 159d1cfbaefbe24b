"""What samples cannot be selected for is refused before training, with the way out."""

from __future__ import annotations

import pytest
import torch
from foreign import Contracted, Indices, Manual, Stranger, fit, loader
from helpers import trainer
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import CombinedLoader
from lightning_recipes.callbacks import InfoBatch, RandomSubset
from lightning_recipes.modules.core.errors import InputError
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(40))


class OwnBatches(BatchSampler):
    pass


DATA = Indices(40)
LOADERS = {
    "iterable": (lambda: DataLoader(Stream(), 8), "IterableDataset Stream.*map-style"),
    "list": (lambda: [loader(), loader()], "type list.*one torch DataLoader"),
    "dict": (lambda: {"a": loader(), "b": loader()}, "type dict.*one torch DataLoader"),
    "combined": (lambda: CombinedLoader([loader(), loader()]), "type CombinedLoader.*one torch DataLoader"),
    "batch_sampler": (
        lambda: DataLoader(DATA, batch_sampler=OwnBatches(SequentialSampler(DATA), 8, False)),
        "batch_sampler=OwnBatches.*batch_size",
    ),
    "no batches": (lambda: DataLoader(DATA, batch_size=None), "batch_sampler=NoneType.*batch_size"),
    "out of order": (lambda: DataLoader(DATA, 8, num_workers=1, in_order=False), "in_order=False.*True"),
    "weighted": (
        lambda: DataLoader(DATA, 8, sampler=WeightedRandomSampler([1.0] * 40, 40)),
        "WeightedRandomSampler.*shuffle=True",
    ),
    "subset": (lambda: DataLoader(DATA, 8, sampler=SubsetRandomSampler(range(9))), "SubsetRandomSampler.*Subset"),
    "replacement": (
        lambda: DataLoader(DATA, 8, sampler=RandomSampler(DATA, replacement=True)),
        "RandomSampler.*shuffle=True",
    ),
    "fewer": (lambda: DataLoader(DATA, 8, sampler=RandomSampler(DATA, num_samples=9)), "RandomSampler.*Subset"),
}


@pytest.mark.parametrize("callback", [InfoBatch, RandomSubset])
@pytest.mark.parametrize("name", LOADERS)
def test_loaders_that_cannot_be_served(name, callback):
    make, message = LOADERS[name]
    model = Stranger()
    with pytest.raises(InputError, match=f"^{callback.__name__} .*{message}"):
        trainer(max_epochs=2, callbacks=[callback()]).fit(model, make())
    assert model.steps == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda losses: losses.mean(), r"of shape \(\)"),
        (lambda losses: losses[:, None], r"of shape \(8, 1\)"),
        (lambda losses: losses[:, None].expand(-1, 5), r"of shape \(8, 5\)"),
        (lambda losses: losses.mean().item(), "float"),
        (lambda losses: {"loss": losses.mean()}, r"of shape \(\)"),
        (lambda losses: {"cost": losses}, "NoneType"),
    ],
    ids=["scalar", "N1", "NT", "float", "dict", "no loss"],
)
def test_losses_that_are_not_one_per_sample(change, found):
    class Other(Stranger):
        def training_step(self, batch, batch_idx):
            return change(super().training_step(batch, batch_idx))

    model = Other()
    with pytest.raises(InputError, match=rf"InfoBatch .*Other\.training_step.*{found}.*shape \(N,\).*SampleWeighting"):
        fit(model, loader(), InfoBatch())
    assert len(model.steps) == 1


@pytest.mark.parametrize("kind", [Stranger, Contracted])
def test_samples_that_get_lost_on_the_way_to_the_losses(kind):
    def broken(samples):
        return torch.tensor([sample for sample in samples if sample != 11])

    with pytest.raises(InputError, match=r"InfoBatch needs one loss per sample: the batch has 8 samples but .*\(7,\)"):
        fit(kind(), loader(collate_fn=broken), InfoBatch())


def test_a_contract_that_is_not_kept():
    class Forgets(Contracted):
        def training_step(self, batch, batch_idx):
            return self.losses(batch).mean()

        def on_after_backward(self):
            pass

    with pytest.raises(InputError, match=r"Forgets did not call self\.reduce\(losses\)"):
        fit(Forgets(), loader(), InfoBatch())


def test_manual_optimization_that_cannot_be_weighted():
    class ByHand(Stranger):
        automatic_optimization = False

    with pytest.raises(InputError, match=r"ByHand optimizes manually, so InfoBatch .*SampleWeighting"):
        fit(ByHand(), loader(), InfoBatch())


def test_modules_that_need_not_be_weighted_are_served():
    """RandomSubset without weights asks nothing of a module."""

    class ByHand(LightningModule):
        automatic_optimization = False
        steps = 0

        def training_step(self, batch, batch_idx):
            self.steps += 1

        def validation_step(self, *_):
            pass

        def configure_optimizers(self):
            pass

    model = ByHand()
    fit(model, loader(), RandomSubset(0.5))
    assert model.steps == 3 * 3
    fit(Manual(), loader(), RandomSubset(0.5))


def test_a_step_that_reads_batches_itself():
    class Reads(Stranger):
        def training_step(self, dataloader_iter):
            return super().training_step(*next(dataloader_iter)[:2])

    with pytest.raises(InputError, match=r"InfoBatch cannot serve .*dataloader_iter: let it take the batch"):
        fit(Reads(), loader(), InfoBatch())


def test_two_selections():
    with pytest.raises(InputError, match=r"InfoBatch and RandomSubset both choose .*keep one"):
        fit(Stranger(), loader(), InfoBatch(), RandomSubset())


def test_a_run_without_an_end():
    with pytest.raises(InputError, match=r"InfoBatch must know when the run ends.*max_epochs and max_steps"):
        fit(Stranger(), loader(), InfoBatch(), max_epochs=-1, max_steps=-1)


def test_a_run_without_an_end_is_served_where_the_rule_does_not_ask():
    model = Stranger()
    model.on_train_batch_start = lambda *_: setattr(model.trainer, "should_stop", model.global_step >= 12)
    fit(model, loader(), InfoBatch(delta=1.0), max_epochs=-1, max_steps=-1)
    assert len(model.indices(1)) < 40


def test_a_checkpoint_of_other_data(tmp_path):
    run = fit(Stranger(), loader(), InfoBatch(), max_epochs=1)
    run.save_checkpoint(tmp_path / "last.ckpt")
    other = DataLoader(Subset(DATA, range(30)), 8, shuffle=True)
    with pytest.raises(
        InputError, match=r"InfoBatch has scores of 40 samples but there are 30 .*data of the checkpoint"
    ):
        fit(Stranger(), other, InfoBatch(), ckpt_path=tmp_path / "last.ckpt")


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_users_own_distributed_sampler_keeps_its_settings(shuffle):
    """One of three processes that some launcher of the user's started."""
    own = DistributedSampler(DATA, num_replicas=4, rank=1, shuffle=shuffle, seed=5, drop_last=True)
    model, other = Stranger(), Stranger()
    run = fit(model, DataLoader(DATA, 5, sampler=own), RandomSubset(0.5, rescale=True))
    found = run.train_dataloader.sampler
    assert isinstance(found, DistributedSampler)
    assert (found.num_replicas, found.rank, found.shuffle, found.seed, found.drop_last) == (4, 1, shuffle, 5, True)
    assert [len(model.indices(epoch)) for epoch in range(3)] == [5, 5, 5]
    assert shuffle or model.indices(0) == sorted(model.indices(0))
    own.seed = 6
    fit(other, DataLoader(DATA, 5, sampler=own), RandomSubset(0.5, rescale=True))
    assert model.indices(0) != other.indices(0)
