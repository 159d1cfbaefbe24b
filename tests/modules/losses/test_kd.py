import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import KD, kd_loss

from .examples import LABELS, STUDENT, TEACHER, close, random_logits


@pytest.mark.parametrize(("temperature", "expected"), [(1, 0.34335560), (4, 0.64771361), (1000, 0.68993610)])
def test_worked_numbers(temperature, expected):
    close(kd_loss(STUDENT, TEACHER, temperature=temperature).mean(), expected)


def test_beside_cross_entropy():
    ce = torch.nn.functional.cross_entropy(STUDENT, LABELS)
    close(ce, 0.64542643)
    close(0.1 * ce + 0.9 * KD()(STUDENT, TEACHER, LABELS).mean(), 0.64748490)


def test_tends_to_the_squared_distance_of_centred_logits():
    centred = [logits - logits.mean(1, keepdim=True) for logits in (STUDENT, TEACHER)]
    limit = (centred[0] - centred[1]).square().sum(1) / (2 * 5)
    close(limit.mean(), 0.69)
    close(kd_loss(STUDENT, TEACHER, temperature=1e5), limit, atol=1e-5)


def test_the_square_of_the_temperature_keeps_the_gradient():
    for temperature, expected in [(1, 0.256), (2, 0.337), (4, 0.360), (10, 0.368), (100, 0.371)]:
        student = STUDENT.clone().requires_grad_()
        kd_loss(student, TEACHER, temperature=temperature).mean().backward()
        close(student.grad.norm(), expected, atol=5e-4)


def test_zero_for_equal_logits_and_blind_to_their_level():
    student, teacher, _ = random_logits()
    close(kd_loss(teacher, teacher), torch.zeros(6), atol=1e-12)
    close(kd_loss(student + 5, teacher - torch.arange(6.0).unsqueeze(1)), kd_loss(student, teacher), atol=1e-10)


def test_arguments_are_checked():
    with pytest.raises(InputError, match="temperature must be positive but is 0"):
        KD(temperature=0)
    with pytest.raises(ValueError, match=r"must have the shape of student_logits \(2, 5\) but got \(2, 4\)"):
        kd_loss(STUDENT, TEACHER[:, :4])
