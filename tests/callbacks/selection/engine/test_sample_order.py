"""A sample is known by its index, whatever the collate function and the transfer hooks do with the order."""

from __future__ import annotations

import pytest
import torch
from foreign import Stranger, fit, loader
from lightning_recipes.callbacks import InfoBatch, RandomSubset, SeTa
from lightning_recipes.modules.core.errors import InputError
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Subset


def sorting(samples):
    samples.sort(key=lambda sample: sample[0], reverse=True)
    return torch.tensor([index for _, index in samples])


def sorted_copy(samples):
    return torch.tensor([index for _, index in sorted(samples, reverse=True)])


def shuffling(samples):
    return torch.tensor([samples[place][1] for place in torch.randperm(len(samples)).tolist()])


def refilled(samples):
    """The usual way to leave broken samples out and keep the size of the batch."""
    good = [index for _, index in samples if index % 5]
    return torch.tensor((good * len(samples))[: len(samples)])


def padded(samples):
    return {"lengths": torch.tensor([length for length, _ in samples]), "place": torch.arange(len(samples))}


# Lengths in an order unlike that of the indices.
DATA = [(index * 7 % 41, index) for index in range(40)]


class Learned(Stranger):
    """The loss of sample i stays what it is, so each score has one right value."""

    def __init__(self) -> None:
        super().__init__(lr=0.0)

    def known(self):
        return self.value.detach().exp()


def check_scores(model, callback):
    torch.testing.assert_close(callback.last["scores"], model.known())
    hard = (model.known() >= model.known().mean()).nonzero().flatten().tolist()
    assert all(model.epoch_weights(1)[index] == pytest.approx(1, rel=1e-5) for index in hard)
    assert max(model.epoch_weights(1).values()) > 1.5


class Kept(InfoBatch):
    def teardown(self, trainer, pl_module, stage):
        self.last = {name: values.clone() for name, values in self.memory.items()}
        super().teardown(trainer, pl_module, stage)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_list_sorted_in_place_is_followed(workers):
    model, callback = Learned(), Kept(delta=1.0)
    fit(model, DataLoader(DATA, 8, shuffle=True, collate_fn=sorting, num_workers=workers), callback)
    check_scores(model, callback)


@pytest.mark.parametrize("collate", [sorted_copy, shuffling, refilled])
@pytest.mark.parametrize("callback", [InfoBatch, SeTa])
def test_another_order_of_the_collate_function_is_refused_at_the_first_batch(collate, callback):
    model = Learned()
    with pytest.raises(InputError, match=r"the collate function changes their order.*self\.sample_indices"):
        fit(model, DataLoader(DATA, 8, shuffle=True, collate_fn=collate), callback())
    assert len(model.steps) == 1


def test_a_rule_without_losses_minds_no_order():
    model = Learned()
    fit(model, DataLoader(DATA, 8, shuffle=True, collate_fn=sorted_copy), RandomSubset(0.5))
    assert len(model.indices(1)) == 20


@pytest.mark.parametrize("hook", ["on_before_batch_transfer", "on_after_batch_transfer"])
def test_another_order_of_a_transfer_hook_is_refused_at_the_first_batch(hook):
    model = Learned()
    setattr(model, hook, lambda batch, dataloader_idx: batch.flip(0))
    with pytest.raises(InputError, match=r"a hook of the batch transfer .*changes their order"):
        fit(model, loader(), InfoBatch())


def test_a_batch_that_is_reordered_in_place_after_the_callback_is_refused_at_the_first_batch():
    class Reverses(Learned):
        def on_train_batch_start(self, batch, batch_idx):
            batch.copy_(batch.flip(0))

    with pytest.raises(InputError, match="a later hook or the training step changes their order"):
        fit(Reverses(), loader(), InfoBatch())


class ReadsInOrder(list):
    """As files are read that want rising indices."""

    def __getitems__(self, indices):
        return [self[index] for index in sorted(indices)]


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, range(40))])
@pytest.mark.parametrize("workers", [0, 2])
def test_another_order_of_a_data_set_that_reads_batches_is_refused_at_the_first_batch(wrap, workers):
    data = wrap(ReadsInOrder(range(40)))
    with pytest.raises(InputError, match="the data set's __getitems__ changes their order"):
        fit(Learned(), DataLoader(data, 8, shuffle=True, num_workers=workers), InfoBatch())


def test_a_subset_by_a_transfer_hook_is_refused_at_the_first_batch():
    model = Learned()
    model.on_after_batch_transfer = lambda batch, dataloader_idx: batch[:5]
    with pytest.raises(InputError, match=r"the batch has 8 samples but its losses have shape \(5,\)"):
        fit(model, loader(), InfoBatch())


@pytest.mark.parametrize("collate", [sorting, sorted_copy])
def test_the_module_names_the_samples(collate):
    class Names(Learned):
        def training_step(self, batch, batch_idx):
            return {"loss": super().training_step(batch, batch_idx), "indices": batch}

    model, callback = Names(), Kept(delta=1.0)
    fit(model, DataLoader(DATA, 8, shuffle=True, collate_fn=collate), callback)
    check_scores(model, callback)


def test_indices_that_are_not_in_the_batch_are_refused():
    class Wrong(Learned):
        def training_step(self, batch, batch_idx):
            return {"loss": super().training_step(batch, batch_idx), "indices": batch + 40}

    with pytest.raises(InputError, match="indices of samples that are not in the batch"):
        fit(Wrong(), loader(), InfoBatch())


def test_places_in_a_batch_are_no_data():
    """``arange(N)``, as contrastive losses have it, is the same in every batch."""

    class Pairs(Learned):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["lengths"] % 40, batch_idx)

    fit(Pairs(), DataLoader(DATA, 8, shuffle=True, collate_fn=padded), InfoBatch())


def test_a_step_left_out_leaves_its_samples_without_a_score():
    class Skips(Learned):
        def training_step(self, batch, batch_idx):
            losses = super().training_step(batch, batch_idx)
            return None if batch_idx == 1 else losses

        def on_after_backward(self):
            pass

    model, callback = Skips(), Kept(warmup_epochs=3)
    fit(model, loader(shuffle=False), callback)
    assert callback.last["scores"].isnan().nonzero().flatten().tolist() == [8, 9, 10, 11, 12, 13, 14, 15]


def test_a_stock_batch_sampler_is_served():
    model = Learned()
    data = loader().dataset
    fit(model, DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 16, drop_last=True)), InfoBatch())
    assert [len(step.indices) for step in model.epoch(0)] == [16, 16]
    assert model.reads(0) != sorted(model.reads(0))
