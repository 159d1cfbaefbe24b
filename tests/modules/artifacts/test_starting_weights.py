"""A network starts from a file, and says what it did not find there."""

import pytest
import torch
from lightning_recipes.modules.artifacts.starting_weights import start_from
from lightning_recipes.modules.core.errors import InputError
from torch import nn


def network(classes=10):
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, classes))


@pytest.mark.parametrize("prefix", ["", "network.", "model.module."])
def test_weights_are_found_behind_any_prefix(prefix):
    theirs, ours = network(), network()
    state = {f"{prefix}{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"state_dict": {**state, "objective.scale": torch.ones(2)}}, "run.ckpt")
    assert start_from(ours, "run.ckpt") == []
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items())


def test_a_classifier_of_other_classes_starts_anew():
    theirs, ours = network(10), network(5)
    before = ours[2].weight.clone()
    torch.save(theirs.state_dict(), "weights.pt")
    assert start_from(ours, "weights.pt") == ["2.weight", "2.bias"]
    assert torch.equal(ours[0].weight, theirs[0].weight)
    assert torch.equal(ours[2].weight, before)


def test_a_file_of_another_network_is_refused():
    torch.save({"stem.weight": torch.ones(3)}, "other.pt")
    with pytest.raises(InputError, match=r"other.pt has none of Sequential's weights, such as 0.weight"):
        start_from(network(), "other.pt")
