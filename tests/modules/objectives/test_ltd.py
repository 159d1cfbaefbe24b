from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.objectives import LTD
from torch import nn


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


TEACHER = SimpleNamespace(logits=double([[4, 2, 1, 0, -1], [0.5, 3, 2.5, -0.5, 1]]))
STUDENT = double([[2, 1.5, 0, 0.5, -0.5], [1, 2, 0, 0.5, -1]])
LABELS = torch.tensor([0, 1])


def ltd(temperature, **arguments):
    return LTD(nn.Identity(), temperature=temperature, **arguments)


@pytest.mark.parametrize(
    ("temperature", "expected", "entropy"),
    [(1, 1.20379225, 0.86043665), (2, 1.54788465, 1.33605776), (5, 1.84685516, 1.56192148)],
)
def test_worked_numbers(temperature, expected, entropy):
    assert float(ltd(temperature)(STUDENT, LABELS, TEACHER).mean()) == pytest.approx(expected, abs=5e-9)
    # A student that says what the soft labels say has their entropy as its loss.
    assert float(ltd(temperature)(TEACHER.logits / temperature, LABELS, TEACHER).mean()) == pytest.approx(
        entropy, abs=5e-9
    )


def test_a_certain_teacher_gives_labels_and_a_hot_one_none():
    certain = SimpleNamespace(logits=1e4 * F.one_hot(LABELS, 5).double())
    torch.testing.assert_close(ltd(1)(STUDENT, LABELS, certain), F.cross_entropy(STUDENT, LABELS, reduction="none"))
    torch.testing.assert_close(ltd(1e9)(STUDENT, LABELS, TEACHER), -STUDENT.log_softmax(1).mean(1))


def test_hard_labels_take_their_share():
    losses, terms = ltd(2, hard_weight=0.3).parts(STUDENT, LABELS, TEACHER)
    torch.testing.assert_close(losses, 0.7 * terms["soft"] + 0.3 * terms["ce"])
    torch.testing.assert_close(terms["ce"], F.cross_entropy(STUDENT, LABELS, reduction="none"))
    assert list(ltd(2).parts(STUDENT, LABELS, TEACHER)[1]) == ["soft"]


def test_half_precision_is_left_before_the_first_exponential():
    half = SimpleNamespace(logits=TEACHER.logits.half())
    assert ltd(2)(STUDENT.half(), LABELS, half).dtype == torch.float32


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="temperature must be positive but is 0"):
        ltd(0)
    with pytest.raises(InputError, match=r"hard_weight must be in \[0, 1\] but is 2"):
        ltd(1, hard_weight=2)
