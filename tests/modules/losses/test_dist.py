import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import DIST, dist_loss

from .examples import LABELS, STUDENT3, TEACHER3, close, random_logits


@pytest.mark.parametrize(
    ("temperature", "between", "within", "total"),
    [(1, 0.22449808, 0.18194349, 0.40644158), (4, 4.01407087, 2.35591734, 6.36998821)],
)
def test_worked_numbers(temperature, between, within, total):
    close(dist_loss(STUDENT3, TEACHER3, gamma=0, temperature=temperature).mean(), between)
    close(dist_loss(STUDENT3, TEACHER3, beta=0, temperature=temperature).mean(), within)
    close(DIST(temperature=temperature)(STUDENT3, TEACHER3, LABELS).mean(), total)


def test_zero_for_equal_logits():
    _, teacher, _ = random_logits()
    close(dist_loss(teacher, teacher), torch.zeros(6), atol=1e-6)


def test_between_classes_only_the_correlation_counts():
    _, teacher, _ = random_logits()
    affine = (0.5 * teacher.softmax(1) + 0.5 / 7).log()
    close(dist_loss(affine, teacher, gamma=0), torch.zeros(6), atol=1e-6)


def test_a_batch_of_one_has_no_relation_within_a_class():
    student, teacher, _ = random_logits(samples=1)
    student.requires_grad_()
    loss = dist_loss(student, teacher, beta=0, gamma=1)
    close(loss, [1.0])
    loss.sum().backward()
    assert torch.equal(student.grad, torch.zeros(1, 7).double())


def test_temperature_is_checked():
    with pytest.raises(InputError, match="temperature must be positive but is 0"):
        DIST(temperature=0)
