"""Robustness by AutoAttack, on networks whose robustness is known."""

import sys

import pytest
import torch
from lightning_recipes.modules.attacks import robustness
from lightning_recipes.modules.core.errors import InputError
from torch import nn

pytest.importorskip("pyautoattack")

IMAGES = 0.3 + 0.4 * torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def linear(classes):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, classes))


def margins(network, labels, norm):
    """Distance of each image to the nearest other class: difference of logits over the dual norm of its gradient."""
    logits, weight = network(IMAGES).detach(), network[1].weight.detach()
    difference = logits.gather(1, labels[:, None]) - logits
    length = (weight[labels][:, None] - weight).norm(p=1 if norm == "linf" else 2, dim=-1)
    return (difference / length).masked_fill(torch.eye(len(weight))[labels].bool(), torch.inf).amin(1)


@pytest.mark.parametrize(
    ("norm", "eps", "classes"),
    [
        ("linf", 0.04, 3),
        ("l2", 0.15, 12),
        *(pytest.param("linf", 0.04, classes, marks=pytest.mark.product) for classes in (5, 12)),
        *(pytest.param("l2", 0.15, classes, marks=pytest.mark.product) for classes in (3, 5)),
    ],
)
def test_a_linear_network_is_as_robust_as_its_margins_say(classes, norm, eps):
    """All moves stay within the range of pixels here, so that the distance is exact."""
    network = linear(classes)
    labels = network(IMAGES).argmax(1)
    labels[:6] = (labels[:6] + 1) % classes  # some that it gets wrong
    distance = margins(network, labels, norm)
    assert ((distance - eps).abs() > 1e-4 * eps).all()
    expected = (distance > eps).float().mean().item()
    assert 0.1 < expected < 0.85
    result = robustness(network, IMAGES, labels, eps=eps, norm=norm, batch_size=25)
    found = result.accuracies
    assert found["clean"] == pytest.approx(0.9)
    assert found["autoattack"] == pytest.approx(expected)
    assert found["white_box"] == pytest.approx(expected)
    assert found["clean"] >= found["fgsm"] >= found["pgd20"] >= found["autoattack"] - 1e-6
    assert found["far"] == 0
    assert result.doubts == []


def test_a_network_that_hides_its_gradients_is_doubted():
    class Rounded(nn.Module):
        """Steps of a twentieth, which have no gradient."""

        def __init__(self):
            super().__init__()
            self.network = linear(5)

        def forward(self, images):
            return self.network((20 * images).round() / 20 + 0 * images)

    network = Rounded()
    labels = network(IMAGES).argmax(1)
    result = robustness(network, IMAGES, labels, eps=0.1)
    assert result.accuracies["pgd20"] > result.accuracies["autoattack"] + 0.2
    assert any("Square, which knows no gradients, succeeds" in doubt for doubt in result.doubts)
    assert any("within the largest radius there is" in doubt for doubt in result.doubts)


def test_random_answers_are_doubted():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = linear(5)

        def forward(self, images):
            return self.network(images) + 0.01 * torch.randn(len(images), 5)

    labels = linear(5)(IMAGES).argmax(1)
    doubts = robustness(Noisy(), IMAGES, labels, eps=0.05).doubts
    assert any(doubt.startswith("pyautoattack: it seems to be a randomized defense") for doubt in doubts)
    assert not any(".md" in doubt for doubt in doubts)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_network_and_generators_stay_as_they_were(mode, capfd):
    network = linear(5).train()
    network[1].bias.requires_grad_(False)
    labels = network(IMAGES).argmax(1)
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in network.state_dict().items()}
    with mode():
        images = IMAGES + 0
        first = robustness(network, images, labels, eps=0.05)
    assert network.training
    assert [weight.requires_grad for weight in network.parameters()] == [True, False]
    assert all(weight.grad is None for weight in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert robustness(network, IMAGES, labels, eps=0.05) == first
    assert capfd.readouterr() == ("", "")


def test_no_image_left_is_no_error():
    network = linear(5)
    labels = (network(IMAGES).argmax(1) + 1) % 5
    found = robustness(network, IMAGES, labels, eps=0.05).accuracies
    assert set(found.values()) == {0.0}


@pytest.mark.parametrize(
    ("images", "eps", "message"),
    [
        (IMAGES, 0, "eps must be positive but is 0"),
        (IMAGES[:0], 0.1, "there are no images to attack"),
        (4 * IMAGES - 2, 0.1, r"images must have pixels in \[0, 1\] but they go from -0\.\d+ to 0\.\d+: give mean"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(images, eps, message):
    with pytest.raises(InputError, match=message):
        robustness(linear(5), images, torch.zeros(len(images), dtype=torch.long), eps=eps)


def test_images_too_small_for_square_are_refused():
    with pytest.raises(InputError, match="norm l2 needs images of 5x5 pixels or more"):
        robustness(linear(5), IMAGES[..., :4], torch.zeros(60, dtype=torch.long), norm="l2")


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(InputError, match=r"AutoAttack needs the extra: pip install 'lightning-recipes\[attacks\]'"):
        robustness(linear(5), IMAGES, torch.zeros(60, dtype=torch.long))
