import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_recipes.modules.attacks import PGD
from lightning_recipes.modules.core.errors import InputError
from torch import nn

IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )


def losses(network, images, labels=LABELS):
    network.eval()
    return F.cross_entropy(network(images), labels, reduction="none").detach()


def lengths(change, norm):
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@given(
    eps=st.floats(0, 1),
    steps=st.integers(1, 4),
    start=st.sampled_from(["uniform", "gaussian", "image"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_stays_in_the_ball_and_in_the_range(norm, eps, steps, start, seed):
    attack = PGD(eps, 0.6 * eps, steps, norm=norm, start=start)
    found = attack(convolutional(), IMAGES, LABELS, key=(seed,))
    assert (lengths(found - IMAGES, norm) <= eps + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found.requires_grad


def test_against_a_linear_network_of_two_classes_it_is_the_best_there_is():
    """The loss rises with the difference of two logits, whose gradient w is the same everywhere."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    images, labels = 0.2 + 0.6 * IMAGES, LABELS % 2
    w = (network[1].weight[1] - network[1].weight[0]).detach().view(1, 4, 4)
    sides = torch.where(labels == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    torch.testing.assert_close(PGD(0.1, 0.03, 10)(network, images, labels), images + 0.1 * sides * w.sign())
    torch.testing.assert_close(
        PGD(0.1, 0.05, 20, norm="l2")(network, images, labels), images + 0.1 * sides * w / w.norm(), atol=1e-4, rtol=0
    )


def test_fgsm_is_one_signed_step():
    network = linear()
    images = IMAGES.clone().requires_grad_()
    F.cross_entropy(network(images), LABELS).backward()
    expected = (IMAGES + 0.03 * images.grad.sign()).clamp(0, 1)
    torch.testing.assert_close(PGD.fgsm(0.03)(network, IMAGES, LABELS), expected)


def test_more_steps_restarts_and_radius_hurt_more():
    network = convolutional()
    clean = losses(network, IMAGES).mean()
    one = losses(network, PGD.fgsm(0.05)(network, IMAGES, LABELS)).mean()
    many = losses(network, PGD(0.05, 0.02, 10)(network, IMAGES, LABELS)).mean()
    far = losses(network, PGD(0.5, 0.1, 20)(network, IMAGES, LABELS)).mean()
    assert clean < one <= many < far
    single = losses(network, PGD(0.3, 0.3, 1)(network, IMAGES, LABELS, key=(5,)))
    repeated = losses(network, PGD(0.3, 0.3, 1, restarts=8)(network, IMAGES, LABELS, key=(5,)))
    assert (repeated >= single - 1e-6).all()
    assert repeated.mean() > single.mean()


def test_a_target_is_approached():
    network, target = linear(), (LABELS + 1) % 3
    found = PGD(0.3, 0.1, 10, targeted=True)(network, IMAGES, target)
    assert (losses(network, found, target) < losses(network, IMAGES, target)).all()


def test_without_a_radius_nothing_changes():
    assert torch.equal(PGD(eps=0.0)(convolutional(), IMAGES, LABELS), IMAGES)


def test_the_network_is_left_as_it_was():
    network = convolutional()
    network[1].eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, state = IMAGES.clone(), torch.get_rng_state()
    PGD()(network, images, LABELS)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(images, IMAGES)
    assert torch.equal(torch.get_rng_state(), state)


def test_modes_come_back_even_if_the_network_fails():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    with pytest.raises(RuntimeError):
        PGD()(network, IMAGES, LABELS)
    assert network.training


def test_a_sample_does_not_know_of_the_others():
    network = convolutional()
    attack = PGD(0.1, 0.03, 5, start="image")
    together = attack(network, IMAGES, LABELS)
    alone = torch.cat([attack(network, IMAGES[i : i + 1], LABELS[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone)


def test_random_starts_follow_the_key():
    network = convolutional()
    found = [PGD(0.1, 0.0, 1)(network, IMAGES, LABELS, key=key) for key in ((1, 2), (1, 2), (1, 3))]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_random_starts_fill_the_ball_evenly():
    """A share r^d of the volume lies within r of the radius."""
    images = torch.full((2000, 1, 2, 1), 0.5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    labels = torch.zeros(2000, dtype=torch.long)
    for norm in ("linf", "l2"):
        found = PGD(0.1, 0.0, 1, norm=norm)(network, images, labels)
        inner = (lengths(found - images, norm) < 0.05).float().mean()
        # A binomial share of 1/4 among 2,000 has standard deviation 0.0097; four of them.
        assert abs(inner - 0.25) < 0.039


def test_the_gaussian_start_is_beside_the_image():
    images = torch.full((100, 1, 10, 10), 0.5)
    offset = PGD(0.1, 0.0, 1, start="gaussian")(
        nn.Sequential(nn.Flatten(), nn.Linear(100, 2)), images, LABELS[:1].expand(100)
    )
    # Of 10,000 normal numbers mean and deviation have deviations of 0.01 and 0.007; four of them.
    assert abs((offset - images).mean()) < 0.04e-3
    assert abs((offset - images).std() - 0.001) < 0.03e-3


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode):
    network = convolutional()
    expected = PGD()(network, IMAGES, LABELS)
    with mode():
        images, labels = IMAGES + 0, LABELS + 0
        assert torch.equal(PGD()(network, images, labels), expected)


def test_under_autocast_the_steps_stay_exact():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = PGD()(convolutional(), IMAGES, LABELS)
    assert found.dtype == torch.float32
    assert (lengths(found - IMAGES, "linf") <= 8 / 255 + 1e-7).all()
    # Each pixel that is not cut off by the range has moved by a whole number of steps from its start.
    moved = PGD(0.1, 0.02, 1, start="image")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        change = (moved(convolutional(), 0.2 + 0.6 * IMAGES, LABELS) - (0.2 + 0.6 * IMAGES)).abs()
    assert ((change - 0.02).abs() < 1e-6).logical_or(change < 1e-6).all()


def test_any_loss_and_soft_labels():
    network, soft = linear(), F.one_hot(LABELS, 3).float()
    assert torch.equal(PGD()(network, IMAGES, soft), PGD()(network, IMAGES, LABELS))
    constant = PGD(0.1, 0.02, 3, start="image")(network, IMAGES, LABELS, loss=lambda z, y: 0 * z.sum(1))
    assert torch.equal(constant, IMAGES)


@pytest.mark.parametrize(("norm", "theirs"), [("linf", "PGD"), ("l2", "PGDL2")])
def test_finds_what_torchattacks_finds(norm, theirs):
    """Not among what the tests install, as it pins old versions: pip install --no-deps torchattacks."""
    torchattacks = pytest.importorskip("torchattacks")
    network = convolutional().eval()
    expected = getattr(torchattacks, theirs)(network, eps=0.1, alpha=0.03, steps=7, random_start=False)(IMAGES, LABELS)
    found = PGD(0.1, 0.03, 7, norm=norm, start="image")(network, IMAGES, LABELS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1}, "eps must be at least 0, and finite, but is -1"),
        ({"step_size": math.nan}, "step_size must be at least 0, and finite, but is nan"),
        ({"steps": 0}, "steps must be at least 1 but is 0"),
        ({"norm": "l1"}, "norm must be linf or l2 but is 'l1'"),
        ({"low": 1.0}, r"low must be less than high but they are 1\.0 and 1\.0"),
        ({"start": "normal"}, "start must be uniform, gaussian or image but is 'normal'"),
        ({"restarts": 2, "start": "image"}, "restarts=2 need another start than image"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        PGD(**arguments)
