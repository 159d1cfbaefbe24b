import pytest
import torch
import torch.nn.functional as F
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import (
    ATS,
    ats_loss,
    ats_probabilities,
    derived_average,
    kd_loss,
    wrong_class_variance,
)

from .examples import LABELS, STUDENT, TEACHER, close, double, random_logits


def test_worked_probabilities():
    close(
        ats_probabilities(TEACHER, LABELS, tau_true=4, tau_wrong=2),
        [
            [0.31274039, 0.31274039, 0.18968664, 0.11505076, 0.06978181],
            [0.13778737, 0.22717297, 0.37454491, 0.08357227, 0.17692249],
        ],
    )
    close(
        ats_probabilities(TEACHER + 1, LABELS, tau_true=4, tau_wrong=2)[0],
        [0.26166383, 0.33598300, 0.20378399, 0.12360124, 0.07496794],
    )


def test_equal_temperatures_are_one_temperature():
    _, teacher, labels = random_logits()
    close(ats_probabilities(teacher, labels, tau_true=3, tau_wrong=3), (teacher / 3).softmax(1), atol=1e-12)


@pytest.mark.parametrize(
    ("temperatures", "expected"),
    [
        ((4, 2, 1), 1.85831503),
        ((5, 3, 1), 1.87441296),
        ((4, 4, 4), 25.21488261),
        ((4, 2, 4), 25.46748851),
    ],
)
def test_worked_losses(temperatures, expected):
    close(ATS(*temperatures)(STUDENT, TEACHER, LABELS).mean(), expected)


def test_worked_gradient():
    student = STUDENT.clone().requires_grad_()
    ats_loss(student, TEACHER, LABELS).mean().backward()
    close(student.grad[0], [0.08788002, -0.00822495, -0.06178765, -0.00302579, -0.01484163])
    p = ats_probabilities(TEACHER, LABELS, tau_true=4, tau_wrong=2)
    close(student.grad, (STUDENT.softmax(1) - p) / 2, atol=1e-12)


def test_differs_from_the_divergence_by_the_teachers_entropy():
    p = ats_probabilities(TEACHER, LABELS, tau_true=4, tau_wrong=2)
    entropy = -(p * p.log()).sum(1).mean()
    close(ats_loss(STUDENT, TEACHER, LABELS).mean() - entropy, 0.37410686)
    # With one temperature for all, and the student's the same, the divergence is KD.
    p = (TEACHER / 4).softmax(1)
    loss = ats_loss(STUDENT, TEACHER, LABELS, tau_true=4, tau_wrong=4, tau_student=4)
    close(loss + 16 * (p * p.log()).sum(1), kd_loss(STUDENT, TEACHER), atol=1e-12)


def test_splits_into_guidance_smoothing_and_discrimination():
    p = ats_probabilities(TEACHER, LABELS, tau_true=4, tau_wrong=2)
    log = STUDENT.log_softmax(1)
    true = F.one_hot(LABELS, 5).bool()
    average = derived_average(p, LABELS)
    close(average, [0.17181490, 0.19320676])
    guidance = -(p * log)[true]
    smoothing = -average * log.masked_fill(true, 0).sum(1)
    discrimination = -((p - average.unsqueeze(1)) * log).masked_fill(true, 0).sum(1)
    close(guidance, [0.22405189, 0.13049677])
    close(smoothing, [1.60915990, 1.89299185])
    close(discrimination, [-0.23402271, 0.09395236])
    close(guidance + smoothing + discrimination, ats_loss(STUDENT, TEACHER, LABELS), atol=1e-12)


@pytest.mark.parametrize(
    ("temperatures", "expected"),
    [
        ((1, 1), [0.00172953, 0.01537673]),
        ((2, 2), [0.00357647, 0.00767223]),
        ((4, 4), [0.00191959, 0.00247338]),
        ((4, 2), [0.00845308, 0.01205993]),
        ((5, 3), [0.00402351, 0.00510133]),
    ],
)
def test_worked_variances(temperatures, expected):
    p = ats_probabilities(TEACHER, LABELS, tau_true=temperatures[0], tau_wrong=temperatures[1])
    close(wrong_class_variance(p, LABELS), expected)


def test_variance_is_that_among_the_wrong_classes_scaled_by_their_share():
    _, teacher, labels = random_logits()
    p = ats_probabilities(teacher, labels, tau_true=4, tau_wrong=2)
    wrong = ~F.one_hot(labels, 7).bool()
    among = (teacher[wrong].view(6, 6) / 2).softmax(1)
    share = p[wrong].view(6, 6).sum(1)
    close(wrong_class_variance(p, labels), share**2 * among.var(1, correction=0), atol=1e-12)


@pytest.mark.parametrize(
    ("temperatures", "of_true", "variance"),
    [
        ((4, 4), 0.920853, 2.408636e-4),
        ((5, 3), 0.720944, 4.997971e-3),
        ((4, 2), 0.693135, 1.071308e-2),
    ],
)
def test_an_overconfident_teacher_tells_more_with_two_temperatures(temperatures, of_true, variance):
    label = torch.tensor([0])
    p = ats_probabilities(double([[20, 8, 4, 2, 0]]), label, tau_true=temperatures[0], tau_wrong=temperatures[1])
    close(p[:, 0], [of_true], atol=5e-7)
    close(wrong_class_variance(p, label), [variance], atol=5e-9)


def test_temperatures_too_far_apart_lose_the_true_class():
    p = ats_probabilities(double([[20, 8, 4, 2, 0]]), torch.tensor([0]), tau_true=6, tau_wrong=2)
    close(p[0, 0], 0.299045, atol=5e-7)
    assert p.argmax() == 1


def test_a_negative_logit_of_the_true_class_rises_with_its_temperature():
    for tau_true, expected in [(1, 0.048611), (2, 0.121952), (4, 0.186324), (8, 0.227220)]:
        p = ats_probabilities(double([[-2, 1, 0]]), torch.tensor([0]), tau_true=tau_true, tau_wrong=2)
        close(p[0, 0], expected, atol=5e-7)


def test_a_high_temperature_of_the_true_class_leaves_it_a_logit_of_zero():
    _, teacher, labels = random_logits()
    zeroed = (teacher / 2).masked_fill(F.one_hot(labels, 7).bool(), 0).softmax(1)
    close(ats_probabilities(teacher, labels, tau_true=1e12, tau_wrong=2), zeroed, atol=1e-10)


def test_the_order_of_wrong_classes_stays():
    _, teacher, labels = random_logits()
    p = ats_probabilities(teacher, labels, tau_true=0.5, tau_wrong=7)
    wrong = ~F.one_hot(labels, 7).bool()
    assert torch.equal(p[wrong].view(6, 6).argsort(1), teacher[wrong].view(6, 6).argsort(1))


def test_a_teacher_of_zeros_smooths_the_labels():
    student, _, labels = random_logits()
    smoothed = F.cross_entropy(student, labels, reduction="none", label_smoothing=0.3)
    mixed = 0.7 * F.cross_entropy(student, labels, reduction="none") + 0.3 * ATS()(student, 0 * student, labels)
    close(mixed, smoothed, atol=1e-12)


def test_arguments_are_checked():
    with pytest.raises(InputError, match="tau_wrong must be positive but is -1"):
        ATS(tau_wrong=-1)
    with pytest.raises(ValueError, match=r"labels must be class indices \(N,\) but have shape \(2, 5\)"):
        ats_loss(STUDENT, TEACHER, TEACHER.softmax(1))
