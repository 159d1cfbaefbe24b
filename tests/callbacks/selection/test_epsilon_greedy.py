"""Epsilon-greedy: a fixed part with the highest running means, and a uniform draw from the others."""

import pytest
import torch
from foreign import chosen, prepared
from helpers import trainer
from lightning_recipes.callbacks import EpsilonGreedy
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.sampling import epoch_generator
from settings import classification, digits


def test_the_running_mean_by_hand():
    callback = EpsilonGreedy(score_momentum=0.75)
    memory = callback.new_memory(3)
    callback.update(memory, torch.tensor([0, 2]), torch.tensor([4.0, 1.0]))
    callback.update(memory, torch.tensor([2]), torch.tensor([5.0]))
    callback.update(memory, torch.tensor([2]), torch.tensor([2.0]))
    assert memory["scores"][[0, 2]].tolist() == [4, 2]
    assert memory["scores"][1].isnan()


@pytest.mark.parametrize("prune_ratio", [0.0, 0.41, 0.9])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("levels", [1, 3, None], ids=str)
def test_the_numbers_are_exact_and_the_highest_are_among_them(prune_ratio, epsilon, levels, monkeypatch):
    size = 103
    scores = torch.rand(size, generator=epoch_generator(1, 0))
    if levels is not None:
        scores = (scores * levels).floor()
    indices = chosen(prepared(EpsilonGreedy(prune_ratio, epsilon=epsilon), scores, monkeypatch), 1)
    keep = round((1 - prune_ratio) * size)
    assert len(set(indices)) == len(indices) == keep
    greedy = keep - round(epsilon * keep)
    # As many of the highest, by their values where some are equal.
    assert scores[indices].sort().values[keep - greedy :].tolist() == scores.sort().values[size - greedy :].tolist()


def test_by_hand(monkeypatch):
    """Of ten, five stay: round(0.35 * 5) of them by chance, of the seven that are not the three highest."""
    scores = torch.arange(10)
    found = set()
    for seed in range(100):
        indices = chosen(prepared(EpsilonGreedy(0.5, epsilon=0.35, seed=seed), scores, monkeypatch), 1)
        assert indices[2:] == [7, 8, 9]
        found |= {tuple(indices[:2])}
    # All 21 pairs but for chance; with one drawn, each would hold the 6.
    assert len(found) > 15


@pytest.mark.parametrize(("epsilon", "certain"), [(0.3, 35), (1.0, 0)])
def test_all_others_are_drawn_equally_often(epsilon, certain, monkeypatch):
    """Of 100, 50 stay; 15 of the other 65 are drawn, or, with epsilon 1, 50 of all."""
    counts, draws = torch.zeros(100), 800
    for seed in range(draws):
        indices = chosen(prepared(EpsilonGreedy(0.5, epsilon=epsilon, seed=seed), torch.arange(100), monkeypatch), 1)
        counts[indices] += 1
    assert (counts[100 - certain :] == draws).all()
    share = (50 - certain) / (100 - certain)
    deviation = (counts[: 100 - certain] - share * draws).abs() / (draws * share * (1 - share)) ** 0.5
    assert deviation.max() < 5
    # A control: the same counts are far from the share of the other setting.
    assert abs(share - (0.5 if certain else 15 / 65)) * draws > 5 * (draws * share * (1 - share)) ** 0.5


def test_samples_without_a_score_come_first(monkeypatch):
    nan = float("nan")
    callback = prepared(EpsilonGreedy(0.5, epsilon=0.25), [nan, 8.0, 1.0, 9.0, 0.0, 2.0, 3.0, nan], monkeypatch)
    assert {0, 3, 7} < set(chosen(callback, 1))


def test_the_draw_is_made_with_the_decision_and_kept_with_the_memory(monkeypatch):
    callback = prepared(EpsilonGreedy(0.5, epsilon=0.5, every=3), torch.arange(200), monkeypatch)
    found = {epoch: chosen(callback, epoch) for epoch in range(8)}
    assert found[0] == list(range(200))
    assert found[1] == found[2] == found[3]
    assert found[4] == found[5] == found[6]
    assert found[1] != found[4] != found[7] != found[1]
    assert set(range(150, 200)) < set(found[4])
    # Chosen late, as where `every` was changed at a resume, the set is the same.
    late = prepared(EpsilonGreedy(0.5, epsilon=0.5, every=3), torch.arange(200), monkeypatch)
    assert chosen(late, 6) == found[4]
    resumed = prepared(EpsilonGreedy(0.5, epsilon=0.5, every=3, seed=5), torch.zeros(200), monkeypatch)
    resumed.load_state_dict({"memory": callback.memory, "samples_saved": 0})
    assert chosen(resumed, 7) == chosen(resumed, 8) == found[7]


def test_every_1_draws_in_each_epoch(monkeypatch):
    callback = prepared(EpsilonGreedy(0.5, epsilon=0.5, every=1), torch.arange(200), monkeypatch)
    assert chosen(callback, 1) != chosen(callback, 2)


def test_a_run_drops_the_share_in_every_epoch_but_the_first():
    torch.manual_seed(0)
    callback = EpsilonGreedy(0.5, every=2)
    run = trainer(max_epochs=5, callbacks=[callback])
    run.fit(classification(), digits(subset=None, batch_size=1))
    size = len(callback.memory["scores"])
    assert run.global_step == size + 4 * round(size / 2)
    assert callback.samples_saved == 4 * (size - round(size / 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prune_ratio": 1.0}, r"prune_ratio must be in \[0, 1\) but is 1.0"),
        ({"epsilon": 1.5}, r"epsilon must be in \[0, 1\] but is 1.5"),
        ({"epsilon": -0.5}, r"epsilon must be in \[0, 1\] but is -0.5"),
        ({"score_momentum": -1.0}, r"score_momentum must be in \[0, 1\) but is -1.0"),
        ({"every": 0}, r"every must be at least 1, to decide anew each epoch, but is 0"),
        ({"seed": -1}, r"seed must be at least 0 but is -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        EpsilonGreedy(**arguments)
