import pytest
import torch
import torch.nn.functional as F
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import class_balanced_weights

from .examples import close

CIFAR10_LT = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def test_weights_of_the_long_tailed_cifar_sets():
    expected = [0.050611, 0.076900, 0.121134, 0.195037, 0.318805, 0.524590, 0.868349, 1.442627, 2.409223, 3.992724]
    close(class_balanced_weights(CIFAR10_LT, beta=0.9999), expected, atol=1e-6)
    close(class_balanced_weights(CIFAR10_LT), expected, atol=1e-6)
    weights = class_balanced_weights([int(500 * 0.01 ** (index / 99)) for index in range(100)])
    close(weights[[0, 99]], [0.04487566, 4.37831256], rtol=1e-6)
    assert weights.dtype == torch.float32


def test_they_sum_to_the_number_of_classes_and_fall_with_the_images():
    for beta in (0.0, 0.9, 0.999, 0.999999):
        weights = class_balanced_weights(CIFAR10_LT, beta=beta)
        assert weights.sum().item() == pytest.approx(10, rel=1e-6)
        assert (weights.diff() >= 0).all()


def test_beta_leads_from_equal_weights_to_the_inverse_of_the_count():
    assert class_balanced_weights(CIFAR10_LT, beta=0).tolist() == [1.0] * 10
    assert class_balanced_weights([7, 7, 7]).tolist() == [1.0] * 3
    inverse = 1 / torch.tensor(CIFAR10_LT, dtype=torch.float64)
    # So near to 1 that 1 - beta ** n computed as written has lost its digits.
    close(class_balanced_weights(CIFAR10_LT, beta=1 - 1e-14), 10 * inverse / inverse.sum(), rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.9999])
def test_a_class_without_images_has_no_weight_and_changes_no_other(beta):
    weights = class_balanced_weights([5000, 0, 50], beta=beta)
    assert weights[1] == 0
    assert weights.sum().item() == pytest.approx(2, rel=1e-6)
    assert torch.equal(weights[[0, 2]], class_balanced_weights([5000, 50], beta=beta))


def test_counts_may_be_a_tensor():
    assert torch.equal(class_balanced_weights(torch.tensor(CIFAR10_LT)), class_balanced_weights(CIFAR10_LT))


def test_they_are_what_torchs_weighted_cross_entropy_takes():
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0, 1, 1, 2])
    weights = class_balanced_weights([300, 30, 3])
    losses = F.cross_entropy(logits, labels, reduction="none")
    expected = (weights[labels] * losses).sum() / weights[labels].sum()
    torch.testing.assert_close(F.cross_entropy(logits, labels, weight=weights), expected)


@pytest.mark.parametrize("beta", [1.0, -0.1, float("nan")])
def test_a_beta_out_of_range_is_named(beta):
    with pytest.raises(InputError, match=rf"beta must be in \[0, 1\) but is {beta}"):
        class_balanced_weights([3, 2], beta=beta)


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1], [[3, 2]]])
def test_counts_without_images_are_refused(counts):
    with pytest.raises(InputError, match=r"counts must hold .* but is \[.*: take the class_counts"):
        class_balanced_weights(counts)
