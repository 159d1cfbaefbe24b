"""The rule of InfoBatch: what must hold exactly, and what holds on average, with controls that must fail."""

import math
import pickle

import numpy as np
import pytest
import torch
from helpers import trainer
from hypothesis import given
from hypothesis import strategies as st
from lightning_recipes.callbacks import InfoBatch, infobatch_plan
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.sampling import epoch_generator, uniform_subset
from settings import classification, digits


def plan(scores, prune_ratio=0.5, seed=0, seen=None):
    scores = torch.as_tensor(scores)
    seen = torch.ones(len(scores), dtype=torch.bool) if seen is None else seen
    return infobatch_plan(scores, seen, prune_ratio=prune_ratio, generator=epoch_generator(seed, 0))


def dense(size, indices, weights):
    """Weights of all samples, 0 for those left out."""
    return torch.zeros(size, dtype=torch.float64).index_put((indices,), weights.double())


def lognormal(size, seed=0):
    return torch.empty(size).log_normal_(-1.5, 1.2, generator=epoch_generator(seed, 9))


# -- exact ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 50_000, 1_281_167])
@pytest.mark.parametrize("value", [0.1, 1.0, 3.0, 1e-30])
def test_equal_scores_are_never_easy_whatever_the_constant_and_the_precision(size, value):
    """The released code's mean of 50,000 times 0.1 exceeds 0.1 in single precision, and half of them go."""
    for dtype in (torch.float32, torch.float64) if size < 10**6 else (torch.float32,):
        indices, weights = plan(torch.full((size,), value, dtype=dtype))
        assert torch.equal(indices, torch.arange(size))
        assert (weights == 1).all()


@given(
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=60),
    st.floats(0, 0.99),
    st.integers(0, 5),
)
def test_weights_sum_to_the_number_of_samples_and_hard_samples_stay_at_weight_one(values, prune_ratio, seed):
    scores = torch.tensor(values)
    indices, weights = plan(scores, prune_ratio, seed)
    assert indices.unique().tolist() == indices.tolist()
    every = dense(len(scores), indices, weights)
    easy = scores < scores.mean(dtype=torch.float64).to(scores.dtype)
    if (scores == scores[0]).all():
        easy[:] = False
    assert (every[~easy] == 1).all()
    count = int(easy.sum())
    kept = max(1, round((1 - prune_ratio) * count)) if count else 0
    assert int((every[easy] > 0).sum()) == kept
    assert math.isclose(every.sum(), len(scores), rel_tol=1e-6)
    assert len({float(weight) for weight in every[easy] if weight}) <= 1


@pytest.mark.parametrize("easy", [1, 2, 3, 5, 1001])
def test_no_mass_is_lost_to_rounding(easy):
    """The released code drops the only easy one, and of three keeps one at weight 2."""
    indices, weights = plan([0.0] * easy + [10.0] * 4)
    kept = len(indices) - 4
    assert kept == max(1, round(easy / 2))
    assert weights.double().sum() == pytest.approx(easy + 4, rel=1e-7)


def test_weight_of_an_easy_sample_is_the_inverse_of_its_chance_to_stay():
    indices, weights = plan([0.0] * 1000 + [1.0] * 1000, prune_ratio=0.3)
    assert len(indices) == 1700
    assert weights[:700].tolist() == pytest.approx([1 / 0.7] * 700)


def test_prune_ratio_zero_keeps_all_at_weight_one():
    indices, weights = plan(lognormal(1000), prune_ratio=0.0)
    assert torch.equal(indices, torch.arange(1000))
    assert (weights == 1).all()


def test_samples_not_seen_stay_and_do_not_move_the_mean():
    scores = torch.tensor([1.0, 3.0, -100.0, 100.0])
    seen = torch.tensor([True, True, False, False])
    for seed in range(5):
        indices, weights = plan(scores, 0.5, seed, seen)
        # Only the first lies below the mean of the two; a single easy sample always stays.
        assert indices.tolist() == [0, 1, 2, 3]
        assert weights.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_neither_stops_nor_widens_pruning(bad):
    """In the released code one NaN ends pruning for good, and one inf makes every sample easy."""
    clean = torch.cat([torch.zeros(50), torch.full((50,), 2.0)])
    scores = torch.cat([clean, torch.tensor([bad])])
    indices, weights = plan(scores)
    assert len(indices) == 25 + 50 + 1
    assert dense(101, indices, weights)[-1] == 1


def test_nothing_seen_keeps_all():
    indices, weights = plan(torch.full((5,), torch.nan), seen=torch.zeros(5, dtype=torch.bool))
    assert indices.tolist() == [0, 1, 2, 3, 4]
    assert weights.tolist() == [1] * 5


def test_a_plan_depends_on_its_generator_alone():
    scores = lognormal(500)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = plan(scores), plan(pickle.loads(pickle.dumps(scores))), plan(scores, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


def test_huge_indices_are_exact():
    """A dtype of the losses would round them: 16777217 to 16777216 in single precision."""
    size = 2**24 + 100
    scores = torch.ones(size)
    scores[: size // 2] = 0
    indices, _ = plan(scores)
    assert torch.equal(indices[-(size - size // 2) :], torch.arange(size // 2, size))


@pytest.mark.parametrize("prune_ratio", [-0.1, 1.0, 1.5])
def test_a_prune_ratio_out_of_range_is_refused(prune_ratio):
    with pytest.raises(InputError, match=rf"prune_ratio must be in \[0, 1\) but is {prune_ratio}"):
        plan([0.0, 1.0], prune_ratio)


def test_scores_and_seen_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"shape \(N,\) but are \(3,\), \(2,\)"):
        plan([0.0, 1.0, 2.0], seen=torch.ones(2, dtype=torch.bool))


# -- on average ----------------------------------------------------------------------------------------------------

PLANS, SIZE, DIMENSIONS = 2000, 2000, 16


def largest_z(weights_of):
    """Largest deviation of the mean weighted gradient sum from that of all samples, in standard errors."""
    gradients = torch.randn(SIZE, DIMENSIONS, dtype=torch.float64, generator=epoch_generator(3, 0)) + 0.3
    sums = torch.stack([weights_of(number) @ gradients for number in range(PLANS)])
    error = sums.std(0) / math.sqrt(PLANS)
    return float(((sums.mean(0) - gradients.sum(0)).abs() / error).max())


def test_the_expected_sum_of_weighted_gradients_is_that_of_all_samples():
    scores = lognormal(SIZE)
    assert largest_z(lambda number: dense(SIZE, *plan(scores, seed=number))) < 4.5


def test_controls_without_weights_or_without_chance_are_biased():
    scores = lognormal(SIZE)
    indices, _ = plan(scores)
    assert largest_z(lambda number: (dense(SIZE, *plan(scores, seed=number)) > 0).double()) > 20
    hardest = torch.zeros(SIZE, dtype=torch.float64)
    hardest[scores.topk(len(indices)).indices] = SIZE / len(indices)
    noise = torch.randn(PLANS, SIZE, dtype=torch.float64, generator=epoch_generator(4, 0)) * 1e-3
    assert largest_z(lambda number: hardest + noise[number]) > 20


def test_each_easy_sample_stays_equally_often_and_its_visits_are_independent():
    size, kept, plans = 1200, 0.5, 2000
    scores = torch.cat([torch.zeros(1000), torch.ones(200)])
    stays = torch.stack([dense(size, *plan(scores, seed=number)) > 0 for number in range(plans)])[:, :1000].double()
    # Each plan keeps exactly half, so a sample's count is binomial.
    deviation = (stays.sum(0) - kept * plans).abs() / math.sqrt(plans * kept * (1 - kept))
    assert deviation.max() < 5
    # Blocks of 10 neighbours: hypergeometric counts, chi-square over 100 blocks and many plans.
    blocks = stays.reshape(plans, 100, 10).sum(2)
    variance = 10 * kept * (1 - kept) * (1000 - 10) / (1000 - 1)
    chi_square = ((blocks - 5) ** 2).sum() / variance / (plans * 99)
    assert abs(chi_square - 1) < 5 * math.sqrt(2 / (plans * 99))
    # Gaps between visits are geometric with mean 2.
    gaps = torch.cat([visits.nonzero().flatten().diff() for visits in stays.T]).double()
    assert abs(gaps.mean() - 2) < 5 * math.sqrt(2) / math.sqrt(len(gaps))


def test_uniform_subset_marks_each_pair_equally_often():
    counts = torch.zeros(5, 5)
    for number in range(4000):
        marked = uniform_subset(5, 2, epoch_generator(number, 0)).float()
        counts += marked.outer(marked)
    pairs = counts[torch.triu(torch.ones(5, 5), 1) > 0]
    assert pairs.sum() == 4000
    assert ((pairs - 400).abs() < 5 * math.sqrt(400 * 0.9)).all()


# -- the callback --------------------------------------------------------------------------------------------------


def decisions(callback, epochs, scores, **options):
    """What the callback decides for the epochs of a run of that many, at frozen scores."""
    run = trainer(max_epochs=epochs, callbacks=[callback], **options)
    data = digits(subset=None, batch_size=32)
    model = classification()
    data.setup("fit")
    callback.setup(run, model, "fit")
    callback._take_over(data.train_dataloader())
    callback.memory["scores"] = scores[: callback._data.size]
    decided = [callback.decide(callback.memory["scores"], epoch) for epoch in range(epochs)]
    return [len(indices) / callback._data.size for indices, _ in decided]


@pytest.mark.parametrize(
    ("epochs", "delta", "first_full"),
    [(10, 0.875, 8), (90, 0.875, 78), (200, 0.875, 175), (30, 0.7, 21), (100, 0.29, 29), (5, 0.0, 0), (5, 1.0, 5)],
)
def test_the_last_epochs_use_every_sample_from_floor_of_delta_times_epochs(epochs, delta, first_full):
    kept = decisions(InfoBatch(delta=delta), epochs, lognormal(2000))
    assert [share == 1 for share in kept] == [epoch < 1 or epoch >= first_full for epoch in range(epochs)]


def test_what_is_saved_at_frozen_scores_is_the_share_of_easy_ones_times_the_ratio():
    scores = lognormal(2000)
    kept = decisions(InfoBatch(0.7), 10, scores)
    used = scores[:1131]
    easy = float((used < used.mean()).float().mean())
    assert kept[1:8] == pytest.approx([1 - 0.7 * easy] * 7, abs=1 / 1131)


def test_warmup_epochs_use_every_sample():
    kept = decisions(InfoBatch(warmup_epochs=3, delta=1.0), 5, lognormal(2000))
    assert [share == 1 for share in kept] == [True, True, True, False, False]


def test_percentiles_prune_their_buckets_by_their_ratios_and_weight_them_apart():
    """The bounds and ratios of the authors' ImageNet code."""
    callback = InfoBatch([0.75, 0.5], percentiles=[20, 85], delta=1.0)
    scores = torch.rand(2000, generator=epoch_generator(0, 0))
    kept = decisions(callback, 2, scores)
    assert kept[1] == pytest.approx(1 - 0.2 * 0.75 - 0.65 * 0.5, abs=0.01)
    indices, weights = callback.decide(callback.memory["scores"], 1)
    used = callback.memory["scores"]
    rank = used.argsort().argsort()[indices] / len(used)
    assert weights[rank < 0.199].unique().tolist() == pytest.approx([4], rel=0.02)
    assert weights[(rank > 0.201) & (rank < 0.849)].unique().tolist() == pytest.approx([2], rel=0.02)
    assert (weights[rank > 0.851] == 1).all()
    assert weights.double().sum() == pytest.approx(len(used), rel=1e-6)


def test_per_class_compares_with_the_class_and_not_with_all():
    callback = InfoBatch(per_class=True, delta=1.0)
    run_scores = lognormal(2000)
    decisions(callback, 2, run_scores)
    labels = callback.labels()
    # Every class has its own level, so that the common mean would split between classes.
    scores = callback.memory["scores"] + 100.0 * labels
    indices, weights = callback.decide(scores, 1)
    weighted = dense(len(scores), indices, weights)
    for label in range(10):
        own = labels == label
        easy = own & (scores < scores[own].mean())
        assert (weighted[own & ~easy] == 1).all()
        assert 0.2 < (weighted[easy] == 0).double().mean() < 0.8


def test_score_momentum_keeps_a_share_of_the_old_score():
    callback = InfoBatch(score_momentum=0.9)
    memory = callback.new_memory(4)
    callback.update(memory, torch.tensor([0, 2]), torch.tensor([1.0, 5.0]))
    callback.update(memory, torch.tensor([2, 3]), torch.tensor([6.0, 7.0]))
    assert memory["scores"][[0, 2, 3]].tolist() == pytest.approx([1.0, 5.1, 7.0])
    assert memory["scores"][1].isnan()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prune_ratio": 1.0}, "prune_ratio must be in"),
        ({"prune_ratio": [0.5, 0.5]}, "as many as there are percentiles"),
        ({"prune_ratio": [0.5, 0.5], "percentiles": [50, 20]}, "percentiles must rise"),
        ({"percentiles": [0]}, "percentiles must rise and lie in"),
        ({"percentiles": [50], "per_class": True}, "leave out percentiles"),
        ({"delta": 1.1}, "delta must be in"),
        ({"warmup_epochs": 0}, "warmup_epochs must be at least 1"),
        ({"score_momentum": 1.0}, "score_momentum must be in"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        InfoBatch(**arguments)


def test_training_saves_samples_and_still_learns():
    torch.manual_seed(0)
    callback, model = InfoBatch(), classification()
    run = trainer(max_epochs=10, callbacks=[callback])
    run.fit(model, digits(subset=None, batch_size=32))
    full = 10 * (1131 // 32) * 32
    assert 0.15 * full < callback.samples_saved < 0.4 * full
    assert run.global_step * 32 == full - callback.samples_saved
    assert run.callback_metrics["val/accuracy"] > 0.85
