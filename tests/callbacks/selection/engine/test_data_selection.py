"""Which samples a stranger's run reads, what they weigh and what becomes of their losses."""

from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from foreign import Averaging, Contracted, DictStranger, Indices, Manual, Scores, Stranger, fit, loader
from helpers import trainer, weights
from lightning.pytorch import Callback
from lightning_recipes.callbacks import InfoBatch, RandomSubset
from settings import classification, digits
from torch.utils.data import DataLoader


def expected_scores(before, steps):
    """Scores after an epoch: what a sample's loss was in it, else what they were."""
    after = before.clone()
    for step in steps:
        after[step.indices] = step.losses.float()
    return after


# -- without pruning it is not there ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Stranger, DictStranger, Contracted, Manual])
def test_prune_ratio_0_changes_no_bit(kind):
    plain = Averaging() if kind in (Stranger, DictStranger) else kind()
    fit(plain, loader(shuffle=False))
    for callback in (InfoBatch(0.0, delta=1.0), RandomSubset(0.0)):
        if isinstance(callback, RandomSubset) and kind in (Stranger, DictStranger):
            continue  # without weights it leaves the training step alone
        model = kind()
        run = fit(model, loader(shuffle=False), callback)
        assert run.global_step == 15
        assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(model).items())


def test_prune_ratio_0_changes_no_bit_on_our_shuffled_data():
    results = []
    for callbacks in ([], [InfoBatch(0.0)], [RandomSubset(0.0, rescale=True)]):
        torch.manual_seed(0)
        model = classification(mixup=0.4)
        trainer(max_epochs=2, callbacks=callbacks).fit(model, digits())
        results.append(weights(model))
    for result in results[1:]:
        assert all(torch.equal(value, results[0][name]) for name, value in result.items())


@pytest.mark.parametrize(
    ("epochs", "delta", "full"),
    [(10, 0.875, {0, 8, 9}), (30, 0.7, {0, *range(21, 30)}), (4, 0.0, {0, 1, 2, 3}), (4, 1.0, {0}), (1, 0.875, {0})],
)
def test_first_and_annealing_epochs_use_everything_with_weight_1(epochs, delta, full):
    model = Stranger(24)
    fit(model, loader(24), InfoBatch(delta=delta), max_epochs=epochs, limit_val_batches=0)
    for epoch in range(epochs):
        found = model.epoch_weights(epoch)
        assert len(found) == len(model.indices(epoch))
        assert (len(found) == 24) == (epoch in full)
        assert (max(found.values()) < 1.01) == (epoch in full)
        assert sum(found.values()) == pytest.approx(24, rel=1e-5)


# -- indices and scores ----------------------------------------------------------------------------------------------


class SlowToStart(Indices):
    """Samples that take different times, so that workers finish out of order."""

    def __getitem__(self, index):
        sum(range(20_000 * (index % 3)))
        return super().__getitem__(index)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_workers": 2},
        {"num_workers": 2, "persistent_workers": True},
        {"num_workers": 1, "multiprocessing_context": "spawn", "persistent_workers": True},
        {"shuffle": False},
    ],
    ids=str,
)
def test_scores_are_the_losses_of_the_samples_that_were_read(options, drop_last):
    if options.get("multiprocessing_context") and drop_last:
        pytest.skip("seconds for nothing new")
    callback = InfoBatch(delta=1.0)
    scores, model = Scores(callback), Stranger(43)
    # What a spawned process would have to import for the other takes seconds.
    samples = range(43) if "multiprocessing_context" in options else SlowToStart(43)
    data = DataLoader(samples, 8, **{"shuffle": True, **options}, drop_last=drop_last)
    fit(model, data, callback, scores, max_epochs=4)
    assert scores.before[0].isnan().all()
    for epoch, (before, after) in enumerate(zip(scores.before, scores.before[1:], strict=False)):
        read = model.reads(epoch)
        assert len(set(read)) == len(read)
        # Bits, as NaN equals nothing.
        assert torch.equal(after.view(torch.int32), expected_scores(before, model.epoch(epoch)).view(torch.int32))
        mean = before.nanmean()
        if epoch:
            easy = {i for i, score in enumerate(before.tolist()) if score < mean}
            found = model.epoch_weights(epoch)
            chosen = set(range(43)) - easy
            assert drop_last or chosen <= set(read)
            kept = max(1, round(len(easy) / 2))
            assert len(read) == (43 - len(easy) + kept) // 8 * 8 if drop_last else 43 - len(easy) + kept
            for index, weight in found.items():
                assert weight == pytest.approx(len(easy) / kept if index in easy else 1, rel=1e-4)
    assert [len(step.indices) for step in model.epoch(0)] == ([8] * 5 if drop_last else [8] * 5 + [3])


def test_an_order_that_is_not_shuffled_stays_so():
    model = Stranger()
    fit(model, loader(shuffle=False), InfoBatch(delta=1.0))
    for epoch in range(3):
        assert model.indices(epoch) == sorted(model.indices(epoch))


def test_the_seed_chooses_the_order_and_what_is_left_out():
    def read(seed):
        model = Stranger()
        fit(model, loader(), InfoBatch(delta=1.0, seed=seed), max_epochs=2)
        return model.indices(0), model.indices(1)

    (first, second), again, other = read(1), read(1), read(2)
    assert (first, second) == again
    assert first != other[0]
    assert set(second) != set(other[1])
    assert first[: len(second)] != second


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_no_score(bad):
    class Diverging(Stranger):
        def training_step(self, batch, batch_idx):
            losses = super().training_step(batch, batch_idx)
            return torch.where(batch == 5, bad, losses) if self.current_epoch == 1 else losses

        def on_before_optimizer_step(self, optimizer):
            for parameter in self.parameters():
                parameter.grad.nan_to_num_(0, 0, 0)

    callback = InfoBatch(delta=1.0, prune_ratio=0.01)
    scores, model = Scores(callback), Diverging()
    model.value.data[5] = 3  # not easy, so it is read
    fit(model, loader(), callback, scores, max_epochs=4)
    assert 5 in model.indices(1)
    assert scores.before[1][5] == scores.before[2][5]
    assert scores.before[-1].isfinite().all()


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_scores_of_other_precisions(precision):
    class Half(Stranger):
        def losses(self, indices):
            return super().losses(indices).to(torch.float64 if precision == "64-true" else torch.bfloat16)

    callback = InfoBatch(delta=1.0)
    scores, model = Scores(callback), Half(300)  # bfloat16 cannot count to 300
    fit(model, loader(300, 64), callback, scores, precision=precision)
    assert model.steps[0].losses.dtype == (torch.float64 if precision == "64-true" else torch.bfloat16)
    assert callback.memory["scores"].dtype == torch.float32
    for epoch in range(3):
        assert torch.equal(scores.before[epoch + 1], expected_scores(scores.before[epoch], model.epoch(epoch)))
    assert len(model.indices(1)) < 300


# -- randomness and copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("callback", [InfoBatch, RandomSubset])
def test_global_generators_stay_as_they_were(callback):
    states = []

    class States(Callback):
        def on_train_start(self, *_):
            self.take()

        def take(self):
            states.append((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()))

        def on_train_epoch_end(self, *_):
            self.take()

    def drawn(*callbacks):
        states.clear()
        random.seed(1)
        np.random.seed(1)
        fit(Contracted(), loader(shuffle=False), *callbacks, States(), limit_val_batches=0)
        return list(states)

    assert drawn() == drawn(callback(0.5))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda callback: pickle.loads(pickle.dumps(callback))])
@pytest.mark.parametrize("kind", [InfoBatch, lambda *args, **options: RandomSubset(*args, rescale=True, **options)])
def test_a_copied_callback_does_the_same(copied, kind):
    callback, expected = kind(0.4, seed=3), None
    for number in range(4):
        # The third time as it is after a run.
        model, used = Contracted() if number == 3 else Stranger(), callback if number % 2 else copied(callback)
        fit(model, loader(), used)
        assert expected is None or all(torch.equal(value, expected[name]) for name, value in weights(model).items())
        expected = weights(model)


# -- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("size", "batch_size"), [(1, 1), (1, 8), (2, 1), (2, 8), (7, 2), (7, 8), (8, 8), (9, 8)])
@pytest.mark.parametrize("callback", [InfoBatch(delta=1.0), RandomSubset(0.8, rescale=True)], ids=["info", "random"])
def test_small_data(callback, size, batch_size, drop_last):
    model = Stranger(size)
    run = fit(model, loader(size, batch_size, drop_last=drop_last), callback)
    if drop_last and size < batch_size:
        assert run.global_step == 0  # as without the callback
        return
    assert len(model.validated) == 3
    for epoch in range(3):
        assert model.epoch(epoch)
        assert sum(model.epoch_weights(epoch).values()) == pytest.approx(size, rel=1e-4) or drop_last


def test_an_epoch_of_less_than_a_batch_is_filled_up_with_weight_0():
    """With ``drop_last`` it would be no batch at all."""
    model = Stranger(16)
    fit(model, loader(16, 8, drop_last=True), RandomSubset(0.75, rescale=True), max_epochs=1)
    assert [len(step.indices) for step in model.steps] == [8]
    assert len(set(model.steps[0].indices)) == 4
    # A sample's gradient is the sum of its places.
    assert model.weights[0].tolist() == pytest.approx([4.0] * 8)


def test_a_sample_read_again_to_fill_a_batch_counts_once():
    callback, model = RandomSubset(0.775, rescale=True), Stranger()  # 9 of 40, a batch of 8 and one of 1
    fit(model, loader(), callback, max_epochs=1)
    first, second = model.steps
    assert len(second.indices) == 2
    assert second.indices[1] == first.indices[0]
    assert model.weights[1].tolist() == pytest.approx([40 / 9, 0])
    assert callback.memory["scores"][first.indices[0]] == first.losses[0] != second.losses[1]


def test_equal_scores_prune_nothing():
    class Equal(Stranger):
        def losses(self, indices):
            return super().losses(indices) * 0 + 0.1  # the mean of many 0.1 in float32 exceeds 0.1

    model = Equal(1000)
    fit(model, loader(1000, 100), InfoBatch(delta=1.0))
    assert all(len(model.indices(epoch)) == 1000 for epoch in range(3))
