"""Attacks of one step: N-FGSM and FGSM-RS, by the authors' formulas."""

import pytest
import torch
import torch.nn.functional as F
from lightning_recipes.modules.attacks import NFGSM, PGD
from lightning_recipes.modules.core.errors import InputError
from torch import nn

IMAGES = torch.rand(64, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3))


def signs(points):
    """Of the gradient of the cross-entropy at these images."""
    points = points.clone().requires_grad_()
    net = network().eval()
    return torch.autograd.grad(F.cross_entropy(net(points), LABELS, reduction="sum"), points)[0].sign()


def starts(attack):
    """Where it begins: a step of no length."""
    attack.step_size, step = 0.0, attack.step_size
    found = attack(network(), IMAGES, LABELS, key=(1,))
    attack.step_size = step
    return found


def test_n_fgsm_is_a_step_from_noise_that_nothing_projects():
    attack = NFGSM(0.1)
    start = starts(attack)
    found = attack(network(), IMAGES, LABELS, key=(1,))
    torch.testing.assert_close(found, (start + 0.1 * signs(start)).clamp(0, 1))
    assert (start - IMAGES).abs().max() == pytest.approx(0.2, abs=2e-3)
    assert 0.25 < (found - IMAGES).abs().max() <= 0.3 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_noise_is_uniform():
    """Inside the range of pixels its mean is 0 and its deviation noise · eps / sqrt(3)."""
    images = torch.full((200, 1, 6, 6), 0.5)
    attack = NFGSM(0.1, 0.0, noise=2.0)
    noise = attack(network(), images, LABELS[:1].expand(200), key=(2,)) - images
    # Of 7,200 numbers mean and deviation have deviations of 0.0014 and 0.0006; four of them.
    assert abs(noise.mean()) < 0.0056
    assert abs(noise.std() - 0.2 / 3**0.5) < 0.0024


def test_fgsm_rs_is_one_long_step_of_pgd_projected():
    attack = PGD(0.1, 0.125, 1)
    start = starts(attack)
    found = attack(network(), IMAGES, LABELS, key=(1,))
    step = (start + 0.125 * signs(start)).clamp(IMAGES - 0.1, IMAGES + 0.1).clamp(0, 1)
    torch.testing.assert_close(found, step)


def test_a_network_whose_mode_stays_has_the_batch_statistics():
    images, nets = [], []
    for mode in ("evaluation", "unchanged"):
        nets.append(network())
        images.append(NFGSM(0.1, mode=mode)(nets[-1], IMAGES, LABELS, key=(1,)))
    assert [net[1].num_batches_tracked.item() for net in nets] == [0, 1]
    assert not torch.equal(*images)
    assert all(net.training for net in nets)


def test_it_measures_by_pgd_in_the_ball():
    found = NFGSM(0.1, mode="unchanged").for_evaluation(20)
    assert type(found) is PGD
    assert (found.eps, found.step_size, found.steps, found.start, found.mode) == (
        0.1,
        0.025,
        20,
        "uniform",
        "evaluation",
    )


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="noise must be at least 0, and finite, but is -1"):
        NFGSM(noise=-1)
    with pytest.raises(InputError, match="mode must be evaluation or unchanged but is 'train'"):
        NFGSM(mode="train")
