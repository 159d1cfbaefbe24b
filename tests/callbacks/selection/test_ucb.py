"""UCB: running means of the loss and of its spread, and a set of exact size that holds between decisions."""

import pytest
import torch
from foreign import chosen, prepared
from helpers import trainer
from lightning_recipes.callbacks import UCB
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.sampling import epoch_generator
from settings import classification, digits


def take_in(callback, memory, indices, losses):
    callback.update(memory, torch.tensor(indices), torch.tensor(losses))


def test_scores_by_hand():
    """Losses 1, 2, 2 of sample 0: means 1, 1.8, 1.96; squared deviations 0, 1, 0.04; v 0, 0.8, 0.192."""
    callback = UCB(confidence=10)
    memory = callback.new_memory(3)
    take_in(callback, memory, [0], [1.0])
    assert memory["scores"][0] == 1
    take_in(callback, memory, [0], [2.0])
    assert [float(memory[name][0]) for name in ("means", "deviations", "scores")] == pytest.approx([1.8, 0.8, 9.8])
    take_in(callback, memory, [0, 2], [2.0, 7.0])
    assert [float(memory[name][0]) for name in ("means", "deviations", "scores")] == pytest.approx([1.96, 0.192, 3.88])
    assert memory["scores"][2] == 7
    assert memory["scores"][1].isnan()


def test_momentum_0_forgets_and_confidence_0_is_the_mean():
    callback = UCB(score_momentum=0.0, confidence=0.0)
    memory = callback.new_memory(1)
    for loss in (1.0, 5.0, 2.0):
        take_in(callback, memory, [0], [loss])
    assert memory["scores"].tolist() == [2]
    assert memory["deviations"].tolist() == [9]


def test_the_released_constants_are_the_defaults():
    callback = UCB()
    assert (callback.prune_ratio, callback.confidence, callback.score_momentum, callback.every) == (0.41, 1, 0.2, 10)


def test_the_highest_scores_stay(monkeypatch):
    callback = prepared(UCB(0.5), [0.3, 5.0, 0.1, 0.2, 4.0, 3.0], monkeypatch)
    assert chosen(callback, 0) == [0, 1, 2, 3, 4, 5]
    assert chosen(callback, 1) == [1, 4, 5]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("prune_ratio", [0.0, 0.41, 0.5, 0.99])
@pytest.mark.parametrize("levels", [1, 2, 5, None], ids=str)
def test_the_number_is_exact_whatever_is_equal(size, prune_ratio, levels, monkeypatch):
    scores = torch.rand(size, generator=epoch_generator(1, 0))
    if levels is not None:
        scores = (scores * levels).floor()
    indices = chosen(prepared(UCB(prune_ratio), scores, monkeypatch), 1)
    keep = max(1, round((1 - prune_ratio) * size))
    assert len(set(indices)) == len(indices) == keep
    left_out = torch.ones(size, dtype=torch.bool)
    left_out[indices] = False
    if left_out.any():
        assert scores[indices].min() >= scores[left_out].max()


def test_which_of_equal_scores_stays_is_left_to_chance_and_the_seed(monkeypatch):
    """Four of seven stay: the 9, and three of the six that are equal, each as often."""
    counts = torch.zeros(7)
    for seed in range(600):
        indices = chosen(prepared(UCB(3 / 7, seed=seed), [1.0, 1, 1, 9, 1, 1, 1], monkeypatch), 1)
        assert indices == chosen(prepared(UCB(3 / 7, seed=seed), [1.0, 1, 1, 9, 1, 1, 1], monkeypatch), 1)
        counts[indices] += 1
    assert counts[3] == 600
    assert counts.sum() == 4 * 600
    # Binomial (600, 1/2).
    assert ((counts[[0, 1, 2, 4, 5, 6]] - 300).abs() < 5 * 150**0.5).all()


def test_samples_without_a_score_come_first(monkeypatch):
    nan = float("nan")
    callback = prepared(UCB(0.5), [nan, 8.0, 1.0, 9.0, nan, 2.0], monkeypatch)
    assert chosen(callback, 1) == [0, 3, 4]
    callback = prepared(UCB(0.5), [nan, 8.0, nan, 9.0, nan, nan], monkeypatch)
    assert len(chosen(callback, 1)) == 3
    assert set(chosen(callback, 1)) < {0, 2, 4, 5}


def test_a_set_serves_its_epochs_whatever_scores_become(monkeypatch):
    callback = prepared(UCB(0.5, every=3), [1.0, 2.0, 3.0, 4.0], monkeypatch)
    found = {}
    for epoch in range(1, 8):
        found[epoch] = chosen(callback, epoch)
        callback.memory["scores"] = -callback.memory["scores"]
        assert chosen(callback, epoch) == found[epoch]
    # Decided for epochs 1, 4 and 7; the sign has turned 0, 3 and 6 times.
    assert found == {1: [2, 3], 2: [2, 3], 3: [2, 3], 4: [0, 1], 5: [0, 1], 6: [0, 1], 7: [2, 3]}


@pytest.mark.parametrize("epoch", [4, 5, 6])
def test_the_set_comes_back_with_the_memory(epoch, monkeypatch):
    """Epoch 5 has the set of epoch 4, which its own scores do not give."""
    callback = prepared(UCB(0.5, every=3), [1.0, 2.0, 3.0, 4.0], monkeypatch)
    chosen(callback, 4)
    callback.memory["scores"] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    resumed = prepared(UCB(0.5, every=3), [0.0] * 4, monkeypatch)
    resumed.load_state_dict({"memory": callback.memory, "samples_saved": 0})
    assert chosen(resumed, epoch) == [2, 3]
    assert chosen(resumed, 7) == [0, 1]


def test_a_run_drops_the_share_in_every_epoch_but_the_first():
    torch.manual_seed(0)
    callback, model = UCB(0.5, every=2), classification()
    kept, means = [], []

    def watched(scores, epoch, decide=callback.decide):
        indices, weights = decide(scores, epoch)
        kept.append(set(indices.tolist()))
        means.append(callback.memory["means"].clone())
        return indices, weights

    callback.decide = watched
    trainer(max_epochs=5, callbacks=[callback]).fit(model, digits())
    size = len(callback.memory["scores"])
    assert [len(indices) for indices in kept] == [size, *[round(size / 2)] * 4]
    assert kept[1] == kept[2]
    assert kept[3] == kept[4]
    assert kept[1] != kept[3]
    left_out = sorted(set(range(size)) - kept[1])
    # Bits, as NaN equals nothing.
    assert torch.equal(means[1][left_out].view(torch.int32), means[3][left_out].view(torch.int32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prune_ratio": 1.0}, r"prune_ratio must be in \[0, 1\) but is 1.0"),
        ({"prune_ratio": -0.1}, r"prune_ratio must be in \[0, 1\) but is -0.1"),
        ({"confidence": -1.0}, r"confidence must be at least 0, and finite, but is -1.0"),
        ({"confidence": float("inf")}, r"confidence must be at least 0, and finite, but is inf"),
        ({"score_momentum": 1.0}, r"score_momentum must be in \[0, 1\) but is 1.0"),
        ({"every": 0}, r"every must be at least 1, to decide anew each epoch, but is 0"),
        ({"seed": -1}, r"seed must be at least 0 but is -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        UCB(**arguments)
