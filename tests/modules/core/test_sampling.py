import random
from collections import defaultdict

import numpy as np
import pytest
import torch
from helpers import trainer
from lightning_recipes.callbacks import InfoBatch
from lightning_recipes.modules.attacks import PGD
from lightning_recipes.modules.augmentation.siamese import SiameseAugmentation
from lightning_recipes.modules.core import sampling
from lightning_recipes.modules.core.sampling import (
    EpochSampler,
    Stream,
    derived_seed,
    epoch_generator,
    isolated_rng,
    long_tail_choice,
    stratified_choice,
)
from lightning_recipes.modules.matching import GradientMatching
from settings import adversarial, dataset_distillation, digits
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
        for words in [(0, 0), (0, 1), (1, 0), (0, 0, Stream.SPLIT), (1, 0, Stream.SPLIT)]
    ]
    assert len(set(draws)) == 5


def test_keys_of_different_lengths_or_uses_give_different_seeds():
    keys = [(stream, *words) for stream in Stream for words in [(), (0,), (0, 0), (7,), (7, 0), (7, 0, 0)]]
    assert len({derived_seed(*key) for key in keys}) == len(keys)


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


@pytest.mark.parametrize(
    ("classes", "each", "ratio", "total"),
    [(10, 5000, 100, 12406), (10, 5000, 50, 13996), (100, 500, 100, 10847), (100, 500, 50, 12608), (10, 500, 1, 5000)],
)
def test_the_long_tail_has_the_published_sizes(classes, each, ratio, total):
    chosen = long_tail_choice(torch.arange(classes).repeat(each), ratio)
    assert len(chosen) == total
    assert (chosen.diff() > 0).all()


def test_each_class_of_the_long_tail_has_its_share():
    labels = torch.arange(10).repeat(5000)
    counts = labels[long_tail_choice(labels, 100)].bincount().tolist()
    assert counts == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def test_the_long_tail_holds_the_images_of_the_published_rule():
    labels = torch.randint(7, (900,), generator=epoch_generator(0, 0))
    labels[labels == 3] = 2  # one class without images, one with many
    # As released with LDAM-DRW: the global generator of numpy, seeded with 0.
    state = np.random.get_state()
    np.random.seed(0)
    most, expected = labels.bincount().max().item(), []
    for index in range(7):
        members = np.where(labels.numpy() == index)[0]
        np.random.shuffle(members)
        expected += members[: int(most * 0.05 ** (index / 6.0))].tolist()
    np.random.set_state(state)
    assert long_tail_choice(labels, 20).tolist() == sorted(expected)
    assert np.array_equal(np.random.get_state()[1], state[1])


def test_a_class_too_small_for_its_place_in_the_tail_keeps_all_it_has():
    labels = torch.tensor([0] * 5 + [1] * 90 + [2] * 100)
    assert labels[long_tail_choice(labels, 4)].bincount().tolist() == [5, 50, 25]
    # More classes than there are labels stretch the tail.
    assert labels[long_tail_choice(labels, 16, num_classes=5)].bincount().tolist() == [5, 50, 25]
    assert long_tail_choice(torch.zeros(4, dtype=torch.long), 100).tolist() == [0, 1, 2, 3]


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


def test_no_two_uses_in_a_run_share_a_seed(monkeypatch):
    """Adversarial training with pruning, mixing and wrong labels, and dataset distillation with its evaluation."""
    users = defaultdict(set)
    sequence = sampling._sequence

    def recorded(stream, words):
        result = sequence(stream, words)
        users[int(result.generate_state(1)[0])].add((stream, words))
        return result

    monkeypatch.setattr(sampling, "_sequence", recorded)
    model = adversarial(mixup=0.2)
    model.attack = PGD(0.05, 0.02, 1)
    trainer(max_epochs=2, callbacks=[InfoBatch(delta=1.0)]).fit(model, digits(label_noise=0.1))
    distillation = dataset_distillation(GradientMatching(2, 1), augmentation=SiameseAugmentation())
    trainer(max_epochs=2).fit(distillation, digits())
    used = {stream for keys in users.values() for stream, _ in keys}
    elsewhere = {Stream.FILE_AUGMENTATION, Stream.ROBUSTNESS, Stream.REAL_ORDER, Stream.CONTRAST_NEGATIVES}
    assert used == set(Stream) - elsewhere
    assert all(len(keys) == 1 for keys in users.values())
