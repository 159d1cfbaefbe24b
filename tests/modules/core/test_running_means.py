import torch
from lightning_recipes.modules.core.running_means import RunningMeans


def test_means_of_batches_are_weighted_by_their_size():
    means = RunningMeans()
    means.update({"loss": torch.tensor(1.0), "accuracy": torch.tensor(0.5)}, 3)
    means.update({"loss": torch.tensor(5.0), "accuracy": torch.tensor(1.0)}, 1)
    assert {name: value.item() for name, value in means.compute().items()} == {"loss": 2.0, "accuracy": 0.625}


def test_low_precision_does_not_lose_counts_and_nothing_keeps_the_graph():
    means = RunningMeans()
    weight = torch.ones((), requires_grad=True)
    for _ in range(1000):
        means.update({"x": (weight * 1.0).to(torch.bfloat16)}, 1)
    assert means.compute()["x"].item() == 1.0
    assert not means.compute()["x"].requires_grad


def test_a_reset_forgets_everything():
    means = RunningMeans()
    means.update({"x": torch.tensor(1.0)}, 1)
    means.reset()
    assert means.compute() == {}
