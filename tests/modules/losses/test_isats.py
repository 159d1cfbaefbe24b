import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import (
    ISATS,
    ats_loss,
    ats_probabilities,
    isats_probabilities,
    wrong_class_variance,
)

from .examples import LABELS, STUDENT, TEACHER, close, double, random_logits

GRID = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]


def test_worked_variances_fall_with_the_temperature():
    for tau, expected in [
        (1, [0.03748024, 0.05741429]),
        (2, [0.00845308, 0.01205993]),
        (3, [0.00352988, 0.00472487]),
        (4, [0.00191959, 0.00247338]),
    ]:
        p = isats_probabilities(TEACHER, LABELS, tau_true=4, tau_wrong_grid=[tau])
        close(wrong_class_variance(p, LABELS), expected)


def test_takes_the_greatest_variance_that_keeps_the_true_class_in_the_lead():
    """By brute force, sample by sample."""
    _, teacher, labels = random_logits(3, samples=40)
    teacher[torch.arange(40), labels] += 4.0
    found = isats_probabilities(teacher, labels, tau_true=4, tau_wrong_grid=GRID)
    chosen = set()
    for index in range(40):
        z, y = teacher[index : index + 1], labels[index : index + 1]
        options = [ats_probabilities(z, y, tau_true=4, tau_wrong=tau) for tau in GRID]
        leading = [p for p in options if p.argmax() == y]
        best = max(leading or options, key=lambda p: float(wrong_class_variance(p, y) if leading else p[0, y]))
        close(found[index], best[0], atol=1e-12)
        chosen.add(next(i for i, p in enumerate(options) if p is best))
    assert len(chosen) > 3


def test_without_a_temperature_that_keeps_the_lead_the_true_class_gets_most():
    z, y = double([[-2, 1, 0]]), torch.tensor([0])
    options = torch.cat([ats_probabilities(z, y, tau_true=4, tau_wrong=tau) for tau in GRID])
    found = isats_probabilities(z, y, tau_true=4, tau_wrong_grid=GRID)
    close(found[0, 0], options[:, 0].max(), atol=1e-12)


@given(st.integers(0, 10_000))
def test_never_takes_the_lead_away_where_one_temperature_keeps_it(seed):
    _, teacher, labels = random_logits(seed, samples=20, scale=6.0)
    found = isats_probabilities(teacher, labels, tau_true=4, tau_wrong_grid=GRID)
    softest = ats_probabilities(teacher, labels, tau_true=4, tau_wrong=4)
    kept = softest.argmax(1) == labels
    assert (found.argmax(1) == labels)[kept].all()
    close(found.sum(1), torch.ones(20), atol=1e-12)


def test_a_grid_of_one_is_ats_where_it_keeps_the_lead_or_not():
    student, teacher, labels = random_logits()
    close(
        ISATS(4, [2.0], 3)(student, teacher, labels),
        ats_loss(student, teacher, labels, tau_true=4, tau_wrong=2, tau_student=3),
        atol=1e-12,
    )


def test_the_default_grid_goes_from_one_to_the_true_temperature():
    assert ISATS(3.0).tau_wrong_grid == (1.0, 1.5, 2.0, 2.5, 3.0)
    assert ISATS(0.5).tau_wrong_grid == (1.0,)


def test_arguments_are_checked():
    with pytest.raises(InputError, match="tau_wrong_grid is empty"):
        ISATS(4, [])
    with pytest.raises(InputError, match=r"tau_wrong_grid\[1\] must be positive but is 0"):
        ISATS(4, [1, 0])
    assert ISATS()(STUDENT, TEACHER, LABELS).shape == (2,)
