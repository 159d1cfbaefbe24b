import pytest
import torch
from lightning_recipes.modules.errors import InputError
from lightning_recipes.modules.temperatures import temperature_grid

TEACHER = torch.tensor([[4, 2, 1, 0, -1], [0.5, 3, 2.5, -0.5, 1]])
LABELS = torch.tensor([0, 1])


def test_worked_numbers():
    rows = temperature_grid(TEACHER, LABELS, tau_true=[4, 5], tau_wrong=[2, 3])
    assert [(row["tau_true"], row["tau_wrong"]) for row in rows] == [(4, 2), (4, 3), (5, 2), (5, 3)]
    first, last = rows[0], rows[-1]
    assert first["true_probability"] == pytest.approx((0.31274039 + 0.22717297) / 2, abs=1e-8)
    assert first["derived_average"] == pytest.approx((0.17181490 + 0.19320676) / 2, abs=1e-8)
    assert first["derived_variance"] == pytest.approx((0.00845308 + 0.01205993) / 2, abs=1e-8)
    assert first["inherent_variance"] == pytest.approx((0.01789671 + 0.02019204) / 2, abs=1e-8)
    assert last["derived_variance"] == pytest.approx((0.00402351 + 0.00510133) / 2, abs=1e-8)
    # In the first row two classes share the lead, in the second a wrong one has it: 2.5 / 2 > 3 / 4.
    assert first["left"] == first["wrong"] == 0.5


def test_derived_variance_is_the_inherent_one_times_the_square_of_the_doubt():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits, label = 3 * torch.randn(1, 6, generator=generator), torch.randint(6, (1,), generator=generator)
        (row,) = temperature_grid(logits, label, tau_true=[4], tau_wrong=[2])
        assert row["derived_variance"] == pytest.approx((1 - row["true_probability"]) ** 2 * row["inherent_variance"])
        assert row["derived_average"] == pytest.approx((1 - row["true_probability"]) / 5)


def test_a_mistake_of_the_teacher_itself_has_not_left():
    logits = torch.tensor([[20.0, 8, 4, 2, 0], [20.0, 8, 4, 2, 0]])
    rows = temperature_grid(logits, torch.tensor([0, 1]), tau_true=[4, 6], tau_wrong=[2])
    assert [(row["left"], row["wrong"]) for row in rows] == [(0.0, 0.5), (0.5, 1.0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau_true": []}, r"tau_true must hold positive temperatures, at least one, but is \[\]"),
        ({"tau_wrong": [1, 0]}, r"tau_wrong must hold positive temperatures, at least one, but is \[1, 0\]"),
        ({"logits": TEACHER[:0], "labels": LABELS[:0]}, "there are no logits"),
    ],
)
def test_wrong_input_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        temperature_grid(**{"logits": TEACHER, "labels": LABELS, "tau_true": [4], "tau_wrong": [2], **arguments})
