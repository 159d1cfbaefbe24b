"""SeTa: groups of near scores, the window that slides over them, and the uniform draw under both."""

import itertools

import numpy as np
import pytest
import torch
from helpers import trainer
from hypothesis import assume, given
from hypothesis import strategies as st
from lightning_recipes.callbacks import SeTa
from lightning_recipes.callbacks.selection.seta import kmeans_bounds
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.sampling import epoch_generator
from settings import classification, digits
from sklearn.cluster import KMeans


def prepared(callback, monkeypatch, epochs=100):
    """A callback outside of a run that would have that many epochs."""
    monkeypatch.setattr(callback, "generator", lambda epoch: epoch_generator(callback.seed or 0, epoch))
    monkeypatch.setattr(callback, "progress", lambda epoch: (epoch + 1) / epochs)
    return callback


def chosen(callback, scores, epoch):
    indices, weights = callback.decide(torch.as_tensor(scores, dtype=torch.float32), epoch)
    assert weights is None
    return indices.tolist()


def grouped(values, groups):
    """The numbers of each group, rising."""
    values = np.sort(np.asarray(values, dtype=np.float32))
    places = np.searchsorted(values, kmeans_bounds(values, groups))
    return [part.tolist() for part in np.split(values, places)]


def spread(parts):
    """Sum of squared distances to the means of the parts."""
    return sum(((np.asarray(part, dtype=float) - np.mean(part, dtype=float)) ** 2).sum() for part in parts)


# -- groups --------------------------------------------------------------------------------------------------------


def test_groups_by_hand():
    """Squared distances 2 + 2 + 0; any other bounds leave more."""
    assert grouped([0, 1, 2, 10, 11, 12, 30], 3) == [[0, 1, 2], [10, 11, 12], [30]]
    assert kmeans_bounds(np.array([0.0, 1, 2, 10, 11, 12, 30]), 3).tolist() == [10, 30]


def test_the_order_of_the_numbers_does_not_matter_and_equal_ones_weigh_as_many():
    """The 2 goes to the side with fewer, whose mean it can move."""
    values = np.array([0.0, 4.0, 5.0, 10.0])
    assert kmeans_bounds(values[[2, 0, 3, 1]], 2).tolist() == kmeans_bounds(values, 2).tolist() == [10]
    assert grouped([1.0] * 50 + [2.0] + [3.0] * 2, 2) == [[1.0] * 50, [2.0, 3.0, 3.0]]
    assert grouped([1.0] * 2 + [2.0] + [3.0] * 50, 2) == [[1.0, 1.0, 2.0], [3.0] * 50]


@given(
    st.lists(st.integers(0, 60).map(lambda value: value**2 / 16), min_size=3, max_size=9),
    st.integers(2, 4),
)
def test_no_other_bounds_are_tighter(values, groups):
    """Exact for few numbers, as all their places are tried."""
    distinct = sorted(set(values))
    assume(len(distinct) > groups)
    least = min(
        spread(np.split(np.sort(values), np.searchsorted(np.sort(values), bounds)))
        for bounds in itertools.combinations(distinct[1:], groups - 1)
    )
    assert spread(grouped(values, groups)) == pytest.approx(least)


@pytest.mark.parametrize(
    ("values", "bounds"),
    [([], []), ([3.0], []), ([3.0] * 9, []), ([3.0, 1.0, 3.0], [3.0]), ([1.0, 2.0, 3.0], [2.0, 3.0])],
)
def test_with_too_few_different_numbers_each_is_a_group(values, bounds):
    assert kmeans_bounds(np.array(values, dtype=np.float32), 3).tolist() == bounds


def test_one_group_has_no_bounds():
    assert kmeans_bounds(np.arange(10.0), 1).tolist() == []


@given(
    st.lists(st.floats(-100, 100, width=32).map(lambda value: round(value, 1)), min_size=1, max_size=60),
    st.integers(1, 8),
)
def test_groups_are_as_many_as_asked_for_and_none_is_empty(values, groups):
    parts = grouped(values, groups)
    assert len(parts) == min(groups, len(set(np.float32(values))))
    assert all(parts)
    assert list(itertools.chain(*parts)) == sorted(np.float32(values).tolist())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", [2, 5, 10])
def test_each_number_is_in_the_group_with_the_nearest_mean(seed, groups):
    values = torch.empty(2000).log_normal_(-1.5, 1.2, generator=epoch_generator(seed, 9)).numpy()
    parts = grouped(values, groups)
    means = np.array([np.mean(part, dtype=np.float64) for part in parts])
    for number, part in enumerate(parts):
        nearest = np.abs(np.asarray(part)[:, None] - means).argmin(1)
        assert (nearest == number).all()
    # A control: with a bound moved by a twentieth of a group that is no longer so.
    moved = len(parts[0]) // 20
    first, second = parts[0][:-moved], parts[0][-moved:] + parts[1]
    assert abs(second[0] - np.mean(second)) > abs(second[0] - np.mean(first))


@pytest.mark.parametrize("seed", [3, 5, 7])
def test_groups_are_as_tight_as_the_best_of_ten_of_scikit_learn(seed):
    values = torch.empty(2000).log_normal_(-1.5, 1.2, generator=epoch_generator(seed, 9)).numpy()
    theirs = KMeans(5, n_init=10, random_state=0).fit(values[:, None])
    quantiles = np.array_split(np.sort(values), 5)
    assert spread(grouped(values, 5)) < 1.005 * theirs.inertia_
    assert spread(quantiles) > 2 * theirs.inertia_


# -- the window ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_groups", "window_scale", "window", "starts"),
    [
        (5, 0.9, 4, [1, 0, 1, 0, 1, 0, 1]),
        (5, 0.6, 3, [1, 2, 0, 1, 2, 0, 1]),
        (5, 0.2, 1, [1, 2, 3, 4, 0, 1, 2]),
        (5, 1.0, 5, [0, 0, 0, 0, 0, 0, 0]),
        (1, 1.0, 1, [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_the_window_slides_by_one_group_an_epoch_and_begins_again(
    num_groups, window_scale, window, starts, monkeypatch
):
    """Ten samples in each of the groups 0, 100, 200, …, each group with the number of its hundred."""
    callback = prepared(SeTa(0, num_groups=num_groups, window_scale=window_scale), monkeypatch)
    scores = torch.arange(10.0).repeat(num_groups) / 10 + torch.arange(num_groups).repeat_interleave(10) * 100
    scores = scores[torch.randperm(len(scores), generator=epoch_generator(0, 0))]
    assert chosen(callback, scores, 0) == list(range(10 * num_groups))
    for epoch, start in enumerate(starts, 1):
        indices = chosen(callback, scores, epoch)
        assert len(set(indices)) == len(indices) == 10 * window
        assert {int(scores[index] // 100) for index in indices} == set(range(start, start + window))


def test_a_draw_is_made_in_each_epoch_and_then_the_window(monkeypatch):
    callback = prepared(SeTa(0.25, num_groups=2, window_scale=0.5), monkeypatch)
    scores = torch.cat([torch.rand(400, generator=epoch_generator(2, 0)), torch.full((400,), 100.0)])
    first = chosen(callback, scores, 0)
    assert len(set(first)) == len(first) == 600
    for epoch in range(1, 5):
        indices = chosen(callback, scores, epoch)
        assert indices == chosen(callback, scores, epoch)
        assert all((index >= 400) == bool(epoch % 2) for index in indices)
        assert 250 < len(indices) < 350
    # Both see the same group, of draws of their own.
    assert chosen(callback, scores, 1) != chosen(callback, scores, 3)


@pytest.mark.parametrize(
    ("epochs", "delta", "first_of_the_end"),
    [(200, 0.875, 175), (10, 0.875, 8), (100, 0.29, 29), (7, 1.0, 7), (5, 0.0, 0)],
)
def test_the_last_epochs_have_the_whole_draw(epochs, delta, first_of_the_end, monkeypatch):
    callback = prepared(SeTa(0.1, delta=delta), monkeypatch, epochs)
    scores = torch.arange(1000)
    sizes = [len(chosen(callback, scores, epoch)) for epoch in range(epochs)]
    assert [size == 900 for size in sizes] == [epoch < 1 or epoch >= first_of_the_end for epoch in range(epochs)]
    assert max(sizes) == 900


def test_drawn_samples_without_a_score_always_stay(monkeypatch):
    scores = torch.arange(1000.0)
    scores[::7] = torch.nan
    callback = prepared(SeTa(0.3, window_scale=0.2), monkeypatch)
    whole = prepared(SeTa(0.3, window_scale=0.2, delta=0.0), monkeypatch)
    for epoch in range(1, 6):
        drawn, indices = set(chosen(whole, scores, epoch)), set(chosen(callback, scores, epoch))
        without = {index for index in drawn if index % 7 == 0}
        assert {index for index in indices if index % 7 == 0} == without
        assert indices < drawn
        assert 80 < len(indices - without) < 160  # a fifth of 600
    nothing = torch.full((1000,), torch.nan)
    assert set(chosen(callback, nothing, 3)) == set(chosen(whole, nothing, 3))


def test_fewer_different_scores_than_groups(monkeypatch):
    """Equal ones all stay; of two levels one group each, and round(0.4 * 2) of them."""
    callback = prepared(SeTa(0, window_scale=0.4), monkeypatch)
    assert chosen(callback, [2.0] * 6, 1) == list(range(6))
    assert chosen(callback, [2.0, 1.0, 2.0], 1) == [0, 2]
    assert chosen(callback, [2.0, 1.0, 2.0], 2) == [1]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_epoch_is_empty(size, monkeypatch):
    callback = prepared(SeTa(0.9, window_scale=0.2), monkeypatch)
    assert all(chosen(callback, torch.arange(size), epoch) for epoch in range(10))


def test_a_run_follows_the_window():
    """The scores of a run's epochs are the losses, and the end of the run is known."""
    torch.manual_seed(0)
    callback, sizes = SeTa(0.1), []

    def watched(scores, epoch, decide=callback.decide):
        indices, weights = decide(scores, epoch)
        sizes.append(len(indices))
        return indices, weights

    callback.decide = watched
    trainer(max_epochs=10, callbacks=[callback]).fit(classification(), digits(subset=None))
    draw = round(0.9 * len(callback.memory["scores"]))
    assert [size == draw for size in sizes] == [epoch in (0, 8, 9) for epoch in range(10)]


def test_a_run_without_an_end_is_refused():
    with pytest.raises(InputError, match=r"SeTa must know when the run ends"):
        trainer(max_epochs=-1, callbacks=[SeTa()]).fit(classification(), digits())
    assert not SeTa(delta=1.0).needs_run_length


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prune_ratio": 1.0}, r"prune_ratio must be in \[0, 1\) but is 1.0"),
        ({"num_groups": 0}, r"num_groups must be at least 1 but is 0"),
        ({"window_scale": 0.0}, r"window_scale must be in \(0, 1\] but is 0.0"),
        ({"window_scale": 1.1}, r"window_scale must be in \(0, 1\] but is 1.1"),
        ({"window_scale": 0.1}, r"window_scale 0.1 of num_groups 5 rounds to no group: raise one of them"),
        ({"delta": 1.1}, r"delta must be in \[0, 1\] but is 1.1"),
        ({"seed": -1}, r"seed must be at least 0 but is -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SeTa(**arguments)
