import math
import statistics

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.teachers import temperature_grid, temperatures

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


def test_a_teacher_that_is_too_sure():
    """One temperature leaves the wrong classes nothing to differ by; two far apart lose the label."""
    logits, labels = torch.tensor([[20.0, 8, 4, 2, 0]]), torch.tensor([0])
    rows = temperature_grid(logits, labels, tau_true=[4, 5, 6], tau_wrong=[2, 3, 4])
    found = {(row["tau_true"], row["tau_wrong"]): row for row in rows}
    for pair, probability, variance, left in [
        ((4, 4), 0.920853, 2.408636e-4, 0),
        ((5, 3), 0.720944, 4.997971e-3, 0),
        ((4, 2), 0.693135, 1.071308e-2, 0),
        ((6, 2), 0.299045, None, 1),
    ]:
        assert found[pair]["true_probability"] == pytest.approx(probability, abs=1e-6)
        assert variance is None or found[pair]["derived_variance"] == pytest.approx(variance, rel=1e-6)
        assert found[pair]["left"] == found[pair]["wrong"] == left


def test_variances_by_the_statistics_module():
    generator = torch.Generator().manual_seed(0)
    logits, labels = 4 * torch.randn(60, 5, generator=generator), torch.arange(60) % 5
    (row,) = temperature_grid(logits, labels, tau_true=[3], tau_wrong=[1.5])
    derived, inherent, left, wrong = [], [], 0, 0
    for scores, label in zip(logits.tolist(), labels.tolist(), strict=True):
        others = [math.exp(score / 1.5) for index, score in enumerate(scores) if index != label]
        true = math.exp(scores[label] / 3)
        derived.append(statistics.pvariance(value / (true + sum(others)) for value in others))
        inherent.append(statistics.pvariance(value / sum(others) for value in others))
        wrong += true < max(others)
        left += true < max(others) and scores[label] == max(scores)
    assert row["derived_variance"] == pytest.approx(statistics.mean(derived), rel=1e-6)
    assert row["inherent_variance"] == pytest.approx(statistics.mean(inherent), rel=1e-6)
    assert (row["wrong"], row["left"]) == (wrong / 60, left / 60)
    assert 0 < left < wrong


def test_a_few_samples_at_a_time_give_the_same(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(101, 7, generator=generator), torch.randint(7, (101,), generator=generator)
    arguments = {"tau_true": [1, 4], "tau_wrong": [1, 2]}
    whole = temperature_grid(logits, labels, **arguments)
    monkeypatch.setattr(temperatures, "_CHUNK", 20)
    for row, expected in zip(temperature_grid(logits, labels, **arguments), whole, strict=True):
        assert row == pytest.approx(expected, rel=1e-12)


def test_memory_is_that_of_a_few_samples(monkeypatch):
    sizes = []
    monkeypatch.setattr(temperatures, "_CHUNK", 100)
    kept = temperatures.ats_probabilities
    monkeypatch.setattr(
        temperatures, "ats_probabilities", lambda z, y, **taus: sizes.append(z.numel()) or kept(z, y, **taus)
    )
    temperature_grid(torch.zeros(50, 10), torch.zeros(50, dtype=torch.long), tau_true=[4], tau_wrong=[2])
    assert sizes == [100] * 5
    sizes.clear()
    temperature_grid(torch.zeros(2, 200), torch.zeros(2, dtype=torch.long), tau_true=[4], tau_wrong=[2])
    assert sizes == [200] * 2


def test_where_two_classes_share_the_lead_neither_has_left():
    rows = temperature_grid(torch.tensor([[2.0, 2, 0]] * 2), torch.tensor([0, 1]), tau_true=[2, 3], tau_wrong=[2])
    assert [(row["left"], row["wrong"]) for row in rows] == [(0, 0), (1, 1)]


def test_a_mistake_of_the_teacher_itself_has_not_left():
    logits = torch.tensor([[20.0, 8, 4, 2, 0], [20.0, 8, 4, 2, 0]])
    rows = temperature_grid(logits, torch.tensor([0, 1]), tau_true=[4, 6], tau_wrong=[2])
    assert [(row["left"], row["wrong"]) for row in rows] == [(0.0, 0.5), (0.5, 1.0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau_true": []}, r"tau_true must hold positive temperatures, at least one, but is \[\]"),
        ({"tau_wrong": [1, 0]}, r"tau_wrong must hold positive temperatures, at least one, but is \[1, 0\]"),
        ({"tau_true": [float("nan")]}, "tau_true must hold positive temperatures"),
        ({"logits": TEACHER[:0], "labels": LABELS[:0]}, "there are no logits"),
        ({"logits": TEACHER[0]}, r"logits must have shape .* have \(5,\) and \(2,\)"),
        ({"logits": TEACHER[:, :1]}, "of at least two classes"),
        ({"labels": LABELS[:1]}, r"\(2, 5\) and \(1,\)"),
        ({"labels": LABELS.float()}, "labels must be class indices but are torch.float32"),
        ({"labels": torch.tensor([-1, 4])}, r"labels must lie in 0\.\.4, .* run from -1 to 4: leave out"),
        ({"labels": torch.tensor([0, 5])}, r"run from 0 to 5"),
        ({"logits": TEACHER / torch.tensor([[1.0], [0.0]])}, "logits must be finite"),
    ],
)
def test_wrong_input_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        temperature_grid(**{"logits": TEACHER, "labels": LABELS, "tau_true": [4], "tau_wrong": [2], **arguments})
