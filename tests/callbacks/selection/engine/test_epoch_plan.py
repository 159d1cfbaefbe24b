"""How selected samples are shared out: fillers weigh nothing, and no epoch ends in a batch that cannot be used."""

import pytest
import torch
from lightning_recipes.callbacks.selection.engine.epoch_plan import epoch_plan
from lightning_recipes.callbacks.selection.engine.sampler import SelectionSampler


def sampler(size, batch_size, *, world=1, rank=0, whole_batches=False, drop_last=False, shuffle=True):
    return SelectionSampler(
        range(size),
        order_of=lambda epoch: torch.arange(size),
        on_epoch=lambda: None,
        batch_size=batch_size,
        whole_batches=whole_batches,
        seed=0,
        shuffle=shuffle,
        num_replicas=world,
        rank=rank,
        drop_last=drop_last,
    )


def plan(indices, weights, chosen):
    indices = torch.tensor(indices)
    return epoch_plan(indices, weights, chosen, epoch=3, first_step=0, weighted=True)


def test_all_samples_come_in_the_order_of_a_run_without_the_callback():
    from lightning_recipes.modules.core.sampling import EpochSampler

    made = plan(range(50), None, sampler(50, 8))
    assert made.order.tolist() == EpochSampler(range(50)).order(3).tolist()
    assert made.weights is None


def test_weights_stay_with_their_samples():
    made = plan([2, 5, 7], torch.tensor([0.2, 0.5, 0.7]), sampler(10, 3))
    assert made.weights.tolist() == pytest.approx([index / 10 for index in made.order.tolist()])


def test_without_shuffling_the_order_is_that_of_the_selection():
    assert plan([2, 5, 7], None, sampler(10, 3, shuffle=False)).order.tolist() == [2, 5, 7]


def test_repeats_that_fill_up_processes_weigh_nothing():
    made = plan([1, 2, 3, 4, 5], torch.full((5,), 2.0), sampler(10, 2, world=3))
    assert made.order.tolist()[5] == made.order.tolist()[0]
    assert made.weights.tolist() == [2, 2, 2, 2, 2, 0]
    assert made.kept == 5


def test_processes_that_drop_the_rest_read_as_many_each():
    made = plan(range(8), None, sampler(10, 2, world=3, drop_last=True))
    assert len(made.order) == 6
    assert made.weights is None


def test_less_than_a_batch_is_filled_up_where_the_loader_drops_smaller_ones():
    made = plan([4, 6], None, sampler(10, 4, whole_batches=True))
    assert len(made.order) == 4
    assert made.weights.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(("selected", "length"), [(8, 8), (9, 10), (10, 10), (1, 2)])
def test_a_last_batch_of_one_gets_a_second_sample(selected, length):
    """One value a channel is an error in batch normalisation, after hours of training."""
    made = plan(range(selected), None, sampler(20, 4))
    assert len(made.order) == length
    if length > selected:
        assert made.weights.tolist() == [1] * selected + [0]


def test_an_epoch_with_every_sample_is_as_long_as_without_the_callback():
    assert len(plan(range(9), None, sampler(9, 4)).order) == 9
    assert len(plan(range(3), None, sampler(3, 4, whole_batches=True)).order) == 3
