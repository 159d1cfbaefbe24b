"""What holds of the sampler and the split for any sizes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_recipes.modules.core.sampling import EpochSampler, stratified_choice


@settings(deadline=None)
@given(size=st.integers(1, 60), world=st.integers(1, 5), epoch=st.integers(0, 3), seed=st.integers(0, 5))
def test_processes_share_the_epoch_evenly_and_leave_nothing_out(size, world, epoch, seed):
    samplers = [EpochSampler(range(size), seed=seed, num_replicas=world, rank=rank) for rank in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    parts = [list(sampler) for sampler in samplers]
    assert {len(part) for part in parts} == {len(samplers[0])} == {-(-size // world)}
    assert {index for part in parts for index in part} == set(range(size))
    # Read in turns, they give the order of one process.
    alone = EpochSampler(range(size), seed=seed)
    alone.set_epoch(epoch)
    assert [part[step] for step in range(len(parts[0])) for part in parts][:size] == list(alone)


@settings(deadline=None)
@given(size=st.integers(1, 40), done=st.integers(0, 40), epoch=st.integers(0, 3))
def test_a_resumed_epoch_is_the_rest_of_it_and_the_next_is_whole(size, done, epoch):
    whole = EpochSampler(range(size))
    resumed = EpochSampler(range(size))
    resumed.resume_at(epoch, done)
    whole.set_epoch(epoch)
    assert list(resumed) == list(whole)[done:]
    resumed.set_epoch(epoch + 1)
    whole.set_epoch(epoch + 1)
    assert list(resumed) == list(whole)


@settings(deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), share=st.floats(0.01, 1.0))
def test_a_share_is_taken_of_each_class_and_nothing_is_lost(labels, share):
    tensor = torch.tensor(labels)
    chosen, rest = stratified_choice(tensor, share, torch.Generator().manual_seed(0))
    assert sorted([*chosen.tolist(), *rest.tolist()]) == list(range(len(labels)))
    for label in set(labels):
        number = labels.count(label)
        taken = int((tensor[chosen] == label).sum())
        assert abs(taken - share * number) <= 0.5 + 1e-4 * number or taken == 1
