"""What holds for every loss on logits."""

import pytest
import torch
from lightning_recipes.modules.losses import ATS, DIST, DKD, ISATS, KD, LSKD

from .examples import close, random_logits

LOSSES = [KD(), KD(1.0), ATS(), ATS(6, 1, 2), ISATS(), DKD(), DIST(), DIST(temperature=4), LSKD(), LSKD(DKD())]
PER_SAMPLE = [loss for loss in LOSSES if not isinstance(loss, DIST)]


def name(loss):
    return repr(type(loss).__name__)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_one_loss_a_sample_with_the_right_gradient(loss):
    student, teacher, labels = random_logits()
    assert loss(student, teacher, labels).shape == (6,)
    assert torch.autograd.gradcheck(lambda z: loss(z, teacher, labels), student.requires_grad_())


@pytest.mark.parametrize("loss", PER_SAMPLE, ids=name)
def test_samples_do_not_know_of_each_other(loss):
    student, teacher, labels = random_logits()
    close(
        torch.cat([loss(*map(slice_of(i), (student, teacher, labels))) for i in range(6)]),
        loss(student, teacher, labels),
        atol=1e-12,
    )


def slice_of(index):
    return lambda values: values[index : index + 1]


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_order_of_samples_and_of_classes_does_not_matter(loss):
    student, teacher, labels = random_logits()
    expected = loss(student, teacher, labels)
    samples, classes = (
        torch.randperm(6, generator=torch.Generator().manual_seed(1)),
        torch.tensor([3, 0, 6, 2, 5, 1, 4]),
    )
    close(loss(student[samples], teacher[samples], labels[samples]), expected[samples], atol=1e-10)
    close(loss(student[:, classes], teacher[:, classes], classes.argsort()[labels]), expected, atol=1e-10)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_least_for_a_student_that_says_what_the_teacher_says(loss):
    """A student trained on nothing else ends with a loss that no step from it lowers by much."""
    student, teacher, labels = random_logits(samples=8)
    student.requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.1)
    first = float(loss(student, teacher, labels).mean())
    for _ in range(600):
        optimizer.zero_grad()
        loss(student, teacher, labels).mean().backward()
        optimizer.step()
    last = float(loss(student, teacher, labels).mean())
    if isinstance(loss, (ATS, ISATS)):
        # The entropy of the teacher's probabilities is left.
        p = torch.autograd.functional.jacobian(lambda z: loss(z, teacher, labels).sum(), student.detach())
        assert p.abs().max() < 1e-2
        assert last < first
    else:
        assert last < 1e-3 < first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_half_precision_is_left_before_the_first_exponential(loss, dtype):
    student, teacher, labels = random_logits()
    student, teacher = student.to(dtype), teacher.to(dtype)
    result = loss(student, teacher, labels)
    assert result.dtype == torch.float32
    close(result, loss(student.double(), teacher.double(), labels), rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(student, teacher, labels), result)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_finite_for_a_certain_teacher_and_a_certain_student(loss, dtype):
    labels = torch.tensor([0, 1, 2])
    certain = 1000 * torch.eye(5, dtype=dtype)[:3]
    pairs = [(certain, certain), (-certain, certain), (certain, -certain)]
    if dtype is torch.float32:
        pairs.append((0 * certain, certain))  # without any variance some have gradients beyond half precision
    for student, teacher in pairs:
        z = student.clone().requires_grad_()
        result = loss(z, teacher, labels)
        assert torch.isfinite(result).all()
        result.sum().backward()
        assert torch.isfinite(z.grad).all()
