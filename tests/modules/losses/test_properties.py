"""What holds for every loss on logits."""

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
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


# Losses that read the teacher's logits as probabilities, in which a class of logit -inf has probability 0.
RULING_OUT = [loss for loss in LOSSES if not isinstance(loss, LSKD)]


@pytest.mark.parametrize("loss", RULING_OUT, ids=name)
@pytest.mark.parametrize("student_too", [False, True])
def test_a_class_that_the_teacher_rules_out_is_one_of_a_very_low_logit(loss, student_too):
    """Also where it is the true class, and where the student rules it out as well."""
    student, teacher, labels = random_logits()
    ruled_out = torch.arange(teacher.shape[1]) == labels[0]
    results = []
    for lowest in (-1e5, -torch.inf):
        z = student.clone().requires_grad_()
        losses = loss(
            z.masked_fill(ruled_out, lowest) if student_too else z, teacher.masked_fill(ruled_out, lowest), labels
        )
        # If both rule out the true class, a divergence of two numbers near 0 is left.
        losses = losses[labels != labels[0]] if student_too else losses
        losses.sum().backward()
        results.append((losses.detach(), z.grad))
    for finite, infinite in zip(*results, strict=True):
        close(infinite, finite, atol=1e-9)


def test_kd_of_a_ruled_out_class_is_torchs_divergence_of_probabilities():
    student, teacher, _ = random_logits()
    teacher[:, 3] = -torch.inf
    expected = 16 * torch.nn.functional.kl_div(
        (student / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="batchmean"
    )
    close(KD()(student, teacher, None).mean(), expected)


def test_dkd_of_a_certain_teacher_has_no_other_classes_to_compare():
    student, _, labels = random_logits(samples=1)
    teacher = torch.where(torch.arange(7) == labels[:, None], 3.0, -torch.inf).double()
    # TCKD is -log p(true class) at the temperature; NCKD is 0.
    close(DKD(beta=8.0)(student, teacher, labels), -16 * (student / 4).log_softmax(1)[0, labels])


@pytest.mark.parametrize("loss", [LSKD(), LSKD(DKD()), ISATS(), DKD(alpha=0.0), DIST(gamma=0.0)], ids=name)
def test_what_teaches_nothing_of_two_classes_is_refused(loss):
    with pytest.raises(InputError, match=r"two classes.* choose (KD|ATS)"):
        loss.build(torch.zeros(2, 2))
    loss.build(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("loss", "message"),
    [(DKD(), r"this is KD times alpha=1\.0"), (DIST(), r"teaches nothing: only gamma=1\.0 counts")],
)
def test_half_of_a_loss_that_two_classes_leave_is_warned_of(loss, message):
    with pytest.warns(UserWarning, match=message):
        loss.build(torch.zeros(2, 2))


@pytest.mark.parametrize("loss", [KD(), ATS()], ids=name)
def test_what_learns_two_classes_says_nothing(loss, recwarn):
    loss.build(torch.zeros(2, 2))
    assert len(recwarn) == 0
    student, teacher, labels = (value[:, :2] if value.ndim == 2 else value % 2 for value in random_logits())
    student = student.clone().requires_grad_()
    loss(student, teacher, labels).sum().backward()
    assert student.grad.norm() > 1e-3


def test_dkd_of_two_classes_is_kd():
    student, teacher, labels = (value[:, :2] if value.ndim == 2 else value % 2 for value in random_logits())
    close(DKD(beta=8.0)(student, teacher, labels), KD()(student, teacher, labels))


def test_lskd_needs_finite_logits():
    teacher = torch.zeros(2, 4)
    teacher[:, 1] = -torch.inf
    with pytest.raises(InputError, match=r"LSKD needs finite logits.* choose KD or DKD"):
        LSKD().build(teacher)
