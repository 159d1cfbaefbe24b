import random

import numpy as np
import pytest
import torch
from lightning_recipes.modules.sampling import EpochSampler, epoch_generator, isolated_rng, stratified_choice
from torch.utils.data import DataLoader, TensorDataset

DATA = TensorDataset(torch.arange(23))


def test_order_depends_on_seed_and_epoch_alone():
    first, second = EpochSampler(DATA, seed=1), EpochSampler(DATA, seed=1)
    torch.manual_seed(99)
    assert list(first) == list(second) == list(first)
    assert sorted(first) == list(range(23))
    epoch_0 = list(first)
    first.set_epoch(1)
    assert list(first) != epoch_0
    assert list(EpochSampler(DATA, seed=2)) != epoch_0


@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_together_read_the_batches_of_one(drop_last):
    def batches(world, rank):
        sampler = EpochSampler(DATA, num_replicas=world, rank=rank, drop_last=drop_last)
        return [batch[0] for batch in DataLoader(DATA, 8 // world, sampler=sampler, drop_last=True)]

    alone, ranks = batches(1, 0), [batches(2, rank) for rank in range(2)]
    joint = [torch.cat(pair) for pair in zip(*ranks, strict=True)]
    assert [set(batch.tolist()) for batch in joint[:2]] == [set(batch.tolist()) for batch in alone]
    assert len(joint) == (2 if drop_last else 3)


def test_resumes_in_the_middle_of_an_epoch_and_starts_the_next_at_its_beginning():
    whole = EpochSampler(DATA)
    whole.set_epoch(3)
    resumed = EpochSampler(DATA)
    resumed.resume_at(3, 10)
    assert list(resumed) == list(whole)[10:]
    # Lightning may ask for epoch 0 before it has restored its own counters.
    resumed.set_epoch(0)
    assert list(resumed) == list(whole)[10:]
    whole.set_epoch(4)
    resumed.set_epoch(4)
    assert list(resumed) == list(whole)


def test_streams_of_an_epoch_differ():
    draws = [
        tuple(torch.rand(3, generator=epoch_generator(*words)).tolist())
        for words in [(0, 0), (0, 1), (1, 0), (0, 0, 1), (1, 0, 1)]
    ]
    assert len(set(draws)) == 5


def test_stratified_choice_takes_a_share_or_a_number_of_each_class():
    labels = torch.tensor([0] * 40 + [1] * 20 + [3] * 2)[torch.randperm(62, generator=epoch_generator(0, 0))]
    chosen, rest = stratified_choice(labels, 0.25, epoch_generator(0, 0))
    assert labels[chosen].bincount().tolist() == [10, 5, 0, 1]
    assert sorted([*chosen.tolist(), *rest.tolist()]) == list(range(62))
    again, _ = stratified_choice(labels, 0.25, epoch_generator(0, 0))
    other, _ = stratified_choice(labels, 0.25, epoch_generator(1, 0))
    assert torch.equal(chosen, again)
    assert not torch.equal(chosen, other)
    assert labels[stratified_choice(labels, 2, epoch_generator(0, 0))[0]].bincount().tolist() == [2, 2, 0, 2]


def test_isolated_rng_is_seeded_inside_and_leaves_no_trace():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draw()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with isolated_rng(5):
        inside = draw()
    with isolated_rng(5):
        assert draw() == inside
    assert draw() == expected
