import math

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import soft_cross_entropy
from lightning_recipes.modules.objectives import CrossEntropy, VariedCrossEntropy


def test_cross_entropy_of_one_sample_by_hand():
    logits = torch.tensor([[math.log(1.0), math.log(3.0)]])
    torch.testing.assert_close(CrossEntropy()(logits, torch.tensor([1])), torch.tensor([math.log(4 / 3)]))


def test_label_smoothing_spreads_its_share_over_all_classes():
    logits = torch.tensor([[math.log(1.0), math.log(3.0)]])
    # 0.2 smoothing of class 1 among 2 classes: target (0.1, 0.9).
    expected = -(0.1 * math.log(1 / 4) + 0.9 * math.log(3 / 4))
    torch.testing.assert_close(CrossEntropy(label_smoothing=0.2)(logits, torch.tensor([1])), torch.tensor([expected]))


def test_smoothed_indices_equal_smoothed_one_hot_labels():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 1])
    objective = CrossEntropy(label_smoothing=0.1)
    torch.testing.assert_close(
        objective(logits, labels), objective(logits, torch.nn.functional.one_hot(labels, 4).float())
    )


def test_losses_are_per_sample_and_differentiable():
    logits = torch.zeros(3, 10, requires_grad=True)
    losses = CrossEntropy()(logits, torch.tensor([0, 5, 9]))
    assert losses.shape == (3,)
    torch.testing.assert_close(losses.detach(), torch.full((3,), math.log(10)))
    losses.sum().backward()
    # softmax minus one-hot
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0, 0], torch.tensor(0.1 - 1.0))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0])
def test_label_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(InputError, match=f"label_smoothing must be in .* but is {smoothing}"):
        CrossEntropy(label_smoothing=smoothing)


def test_soft_cross_entropy_of_a_uniform_target():
    logits = torch.tensor([[math.log(1.0), math.log(3.0)]])
    expected = -(0.5 * math.log(1 / 4) + 0.5 * math.log(3 / 4))
    torch.testing.assert_close(soft_cross_entropy(logits, torch.tensor([[0.5, 0.5]])), torch.tensor([expected]))


def test_soft_cross_entropy_refuses_class_indices():
    with pytest.raises(ValueError, match=r"probabilities must have the logits' shape \(2, 3\) but got \(2,\)"):
        soft_cross_entropy(torch.zeros(2, 3), torch.zeros(2))


def test_varied_cross_entropy_rewards_telling_the_wrong_classes_apart():
    logits = torch.tensor([[3.0, 1.0, -1.0], [3.0, 0.0, 0.0]])
    labels = torch.tensor([0, 0])
    losses, terms = VariedCrossEntropy(variance_weight=2.0, temperature=2.0).parts(logits, labels)
    p = (logits / 2).softmax(1)[:, 1:]
    expected = ((p[:, 0] - p[:, 1]) / 2).square()  # the population variance of two numbers
    torch.testing.assert_close(terms["wrong_class_variance"], expected)
    torch.testing.assert_close(terms["ce"], CrossEntropy()(logits, labels))
    torch.testing.assert_close(losses, terms["ce"] - 2 * expected)
    assert torch.equal(VariedCrossEntropy(0.0)(logits, labels), CrossEntropy()(logits, labels))
    for arguments, message in [((-1,), "variance_weight must be at least 0"), ((1, 0), "temperature must be positive")]:
        with pytest.raises(InputError, match=message):
            VariedCrossEntropy(*arguments)
