"""ReviewKD against numbers that mdistiller's code printed for the same weights and features."""

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import ReviewKD, pyramid_loss

from .examples import close, waves


@pytest.mark.parametrize(
    ("side", "expected", "gradient"),
    [
        (8, 0.28575640673663827, 0.0438961590513696),
        (4, 0.31672477607576566, 0.09740297183533923),
        (1, 0.5136172867693457, 0.5851594009437917),
    ],
)
def test_pyramid_is_the_hierarchical_context_loss(side, expected, gradient):
    student = waves(2, 3, side, side).requires_grad_()
    losses = pyramid_loss(student, waves(2, 3, side, side, shift=1.0))
    assert losses.shape == (2,)
    losses.mean().backward()
    close(losses.mean(), expected, atol=1e-12)
    close(student.grad.norm(), gradient, atol=1e-12)


def test_review_is_that_of_mdistiller():
    loss = ReviewKD(["a", "b", "pool"], ["a", "b", "pool"])
    loss.build([(2, 4, 4), (3, 2, 2), (3,)], [(4, 8, 8), (5, 2, 2), (6,)])
    loss.double()
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.copy_(waves(*parameter.shape))
    student = [waves(3, 2, 4, 4), waves(3, 3, 2, 2, shift=0.5), waves(3, 3, shift=0.2)]
    teacher = [waves(3, 4, 8, 8, shift=1.0), waves(3, 5, 2, 2, shift=2.0), waves(3, 6, shift=3.0)]
    student = [features.requires_grad_() for features in student]
    losses = loss(student, teacher)
    assert losses.shape == (3,)
    losses.mean().backward()
    close(losses.mean(), 3.571979780034323, atol=1e-9)
    for features, expected in zip(
        student, (0.019626947885719823, 0.10610691008301609, 0.1739483304712586), strict=True
    ):
        close(features.grad.norm(), expected, atol=1e-9)


def test_fusions_have_the_size_of_mdistillers():
    """For stages of 32, 64, 128 channels against 64, 128, 256, as mdistiller counts its extra parameters."""
    loss = ReviewKD(list("abcd"), list("abcd"))
    loss.build([(32, 32, 32), (64, 16, 16), (128, 8, 8), (128,)], [(64, 32, 32), (128, 16, 16), (256, 8, 8), (256,)])
    assert sum(parameter.numel() for parameter in loss.parameters()) == 860_038


def test_maps_must_be_square():
    with pytest.raises(InputError, match="teacher_layers: b gives no square map"):
        ReviewKD(["a"], ["b"]).build([(2, 4, 4)], [(2, 4, 8)])
