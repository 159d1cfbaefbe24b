import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import DKD, dkd_loss, kd_loss

from .examples import LABELS, STUDENT, TEACHER, close, random_logits


def test_worked_numbers():
    close(dkd_loss(STUDENT, TEACHER, LABELS, alpha=1, beta=0) / 16, [0.35468431 / 16, 0.00284502 / 16])
    close(dkd_loss(STUDENT, TEACHER, LABELS, alpha=0, beta=1) / 16, [0.19512315 / 16, 1.14767851 / 16])
    close(DKD()(STUDENT, TEACHER, LABELS).mean(), 5.54997129)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_parts_weighed_by_the_teachers_doubt_are_kd(temperature):
    student, teacher, labels = random_logits()
    doubt = 1 - (teacher / temperature).softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    target, others = (
        dkd_loss(student, teacher, labels, alpha=a, beta=1 - a, temperature=temperature) for a in (1.0, 0.0)
    )
    close(target + doubt * others, kd_loss(student, teacher, temperature=temperature), atol=1e-10)


def test_the_others_do_not_depend_on_the_true_class():
    student, teacher, labels = random_logits()
    changed = [z.scatter_add(1, labels.unsqueeze(1), torch.full((6, 1), 9.0).double()) for z in (student, teacher)]
    close(
        dkd_loss(*changed, labels, alpha=0),
        dkd_loss(student, teacher, labels, alpha=0),
        atol=1e-10,
    )


def test_temperature_is_checked():
    with pytest.raises(InputError, match="temperature must be positive but is nan"):
        DKD(temperature=float("nan"))
