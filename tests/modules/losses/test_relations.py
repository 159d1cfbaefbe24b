"""Losses on the relations between images of a batch, RKD and SP, against numbers that the benchmarks' code printed."""

import math

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import RKD, SP, rkd_loss, sp_loss

from .examples import close, waves


@pytest.mark.parametrize(
    ("options", "expected", "gradient"),
    [({}, 5.819496898595346, 6.307378340519185), ({"angle_weight": 0}, 1.2503185428769044, 1.828659710038363)],
)
def test_rkd_is_that_of_mdistiller(options, expected, gradient):
    student = waves(5, 3).requires_grad_()
    losses = rkd_loss(student, waves(5, 4, shift=1.0), **options)
    assert losses.shape == (5,)
    losses.mean().backward()
    close(losses.mean(), expected, atol=1e-12)
    close(student.grad.norm(), gradient, atol=1e-12)


def test_sp_is_that_of_repdistiller():
    student = waves(5, 3, 2, 2).requires_grad_()
    losses = sp_loss(student, waves(5, 4, 3, 3, shift=1.0))
    assert losses.shape == (5,)
    losses.mean().backward()
    close(losses.mean(), 0.004913371996033874, atol=1e-12)
    close(student.grad.norm(), 0.015669100406346597, atol=1e-12)


def test_rkd_by_hand():
    """Three points on a line against a right triangle with two sides of length 1."""
    student = torch.tensor([[0.0], [1.0], [2.0]]).double()
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).double()
    mean_student, mean_teacher = 4 / 3, (2 + math.sqrt(2)) / 3
    differences = [1 / mean_student - 1 / mean_teacher, 2 / mean_student - 1 / mean_teacher]
    # Differences below 1 are squared and halved; each image has three distances, one of them to itself.
    close(rkd_loss(student, teacher, angle_weight=0, distance_weight=1)[0], sum(d**2 / 2 for d in differences) / 3)
    # At image 0 the student's angle between 1 and 2 has the cosine 1, the teacher's 0; counted from both sides.
    close(rkd_loss(student, teacher, angle_weight=1, distance_weight=0)[0], 2 * 0.5 / 9)


@pytest.mark.parametrize("loss", [rkd_loss, sp_loss])
def test_relations_have_no_direction_and_no_size(loss):
    features = waves(6, 4)
    turned, _ = torch.linalg.qr(waves(4, 4, shift=0.3))
    assert loss(3 * features @ turned, features).abs().max() < 1e-12
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    other = waves(6, 7, shift=2.0)
    close(loss(features[order], other[order]), loss(features, other)[order], atol=1e-12)


@pytest.mark.parametrize("loss", [rkd_loss, sp_loss])
@pytest.mark.parametrize("images", [1, 2])
def test_a_small_last_batch_or_equal_images_give_numbers(loss, images):
    for student in (waves(images, 3), torch.ones(images, 3).double(), torch.zeros(images, 3).double()):
        student.requires_grad_()
        losses = loss(student, waves(images, 4))
        losses.sum().backward()
        assert losses.isfinite().all()
        assert student.grad.isfinite().all()
    if images == 1:
        assert loss(waves(1, 3), waves(1, 4)).tolist() == [0.0]


@pytest.mark.parametrize("loss", [rkd_loss, sp_loss])
def test_autocast_does_not_round_relations(loss):
    student, teacher = waves(6, 8, 2, 2).float(), waves(6, 8, 2, 2, shift=1.0).float()
    expected = loss(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(student, teacher), expected)


def test_layers_are_summed_and_arguments_checked():
    student, teacher = [waves(4, 3), waves(4, 2, 5, 5)], [waves(4, 6), waves(4, 3, 2, 2)]
    for kind, function in ((SP, sp_loss), (RKD, rkd_loss)):
        loss = kind(["a", "b"], ["c", "d"])
        loss.build([(3,), (2, 5, 5)], [(6,), (3, 2, 2)])
        close(loss(student, teacher), sum(map(function, student, teacher)))
    with pytest.raises(InputError, match="distance_weight and angle_weight are both 0"):
        RKD(["a"], ["b"], distance_weight=0, angle_weight=0)
    with pytest.raises(InputError, match="angle_weight must be at least 0, and finite, but is -1"):
        RKD(["a"], ["b"], angle_weight=-1)
