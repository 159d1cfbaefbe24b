"""LARS as in InfoBatch's code, by its formula; and by that code itself, run beside ours for the numbers."""

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.optimizers.lars import LARS


def test_first_step_by_hand():
    """|w| = 5, |g| = 1, d = 0.1: the ratio is 0.001 x 5 / (1 + 0.5), and the step goes along g + d w."""
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    weight.grad = torch.tensor([1.0, 0.0])
    LARS([weight], lr=6.0, momentum=0.9, weight_decay=0.1).step()
    rate = 6.0 * 0.001 * 5 / 1.5
    torch.testing.assert_close(weight.detach(), torch.tensor([3 - rate * 1.3, 4 - rate * 0.4]))


def test_the_ratio_comes_after_the_momentum():
    """A second, much larger gradient shrinks the whole of the step, what the first left in the buffer included."""
    weight = torch.tensor([1.0], requires_grad=True)
    optimizer = LARS([weight], lr=1.0, momentum=0.5, largest_gradient=1e6)
    weight.grad = torch.tensor([1.0])
    optimizer.step()
    first = weight.item()
    assert first == pytest.approx(1 - 0.001)
    weight.grad = torch.tensor([1000.0])
    optimizer.step()
    assert weight.item() == pytest.approx(first - 0.001 * first / 1000 * (1000 + 0.5), abs=1e-7)


def test_limits_and_groups_without_a_ratio():
    free, still = torch.tensor([1.0], requires_grad=True), torch.zeros(1, requires_grad=True)
    free.grad, still.grad = torch.tensor([-30.0]), torch.tensor([2.0])
    LARS([{"params": [free], "adapt": False}, {"params": [still]}], lr=0.1, weight_decay=0.5).step()
    assert free.item() == pytest.approx(1 + 0.1 * 10)  # clamped, and not decayed
    assert still.item() == pytest.approx(-0.1 * 2)  # of size 0, so that the ratio is 1


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"momentum must be at least 0, and finite, but is -0\.1"):
        LARS([torch.zeros(1, requires_grad=True)], momentum=-0.1)
