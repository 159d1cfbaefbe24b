import pytest
import torch
from lightning_recipes.modules.losses import ATS, DKD, KD, LSKD, ats_loss, dkd_loss, kd_loss, standardize_logits

from .examples import LABELS, STUDENT, TEACHER, close, random_logits


def test_worked_numbers():
    close(standardize_logits(TEACHER)[0], [1.45565061, 0.41590017, -0.10397504, -0.62385026, -1.14372548], atol=2e-7)
    close(LSKD()(STUDENT, TEACHER, LABELS).mean(), 0.25677095)
    ce = torch.nn.functional.cross_entropy(STUDENT, LABELS)
    close(9 * LSKD()(STUDENT, TEACHER, LABELS).mean() + 0.1 * ce, 2.37548115)


def test_blind_to_level_and_size_of_the_logits():
    close(LSKD()(3 * STUDENT + 7, 0.5 * TEACHER - 2, LABELS).mean(), 0.25677095, atol=2e-8)


def test_is_kd_with_a_temperature_for_each_sample():
    student, teacher, labels = random_logits()
    scaled = [z / z.std(1, keepdim=True) for z in (student, teacher)]
    close(LSKD()(student, teacher, labels), kd_loss(*scaled, temperature=2.0), atol=1e-5)


@pytest.mark.parametrize(("loss", "function"), [(KD(), kd_loss), (DKD(), dkd_loss), (ATS(), ats_loss)])
def test_goes_before_any_loss(loss, function):
    student, teacher, labels = random_logits()
    z = standardize_logits(student), standardize_logits(teacher)
    expected = function(*z) if function is kd_loss else function(*z, labels)
    assert torch.equal(LSKD(loss)(student, teacher, labels), expected)
    assert LSKD(loss).accepts_soft_labels == loss.accepts_soft_labels


def test_equal_logits_stay_finite():
    logits = torch.full((2, 5), 3.0, requires_grad=True)
    LSKD()(logits, TEACHER.float(), LABELS).sum().backward()
    assert torch.isfinite(logits.grad).all()
