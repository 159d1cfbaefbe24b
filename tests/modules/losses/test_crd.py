"""CRD against numbers that RepDistiller's code printed for the same weights, banks and negatives."""

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import CRD, contrast_loss

from .examples import close, waves


def built(num_samples=10, **options):
    loss = CRD(["pool"], ["pool"], num_samples=num_samples, **{"dim": 4, "negatives": 6, **options})
    loss.build([(3,)], [(5,)])
    return loss.double()


def test_crd_is_that_of_repdistiller(monkeypatch):
    loss = built()
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.copy_(waves(*parameter.shape))
        loss.student_bank.copy_(waves(10, 4) / 4)
        loss.teacher_bank.copy_(waves(10, 4, shift=1.0) / 4)
    expected = [  # loss, gradients' lengths, and sums of the banks after the step
        (6.424386766330516, 0.9121895478328649, 0.7831502302949644, -2.36137181174211, -0.111042531675687),
        (19.13240293991682, 1.5353272731339611, 4.530945331435759, -2.628071659056272, -2.233080274996031),
    ]
    for step, numbers in enumerate(expected):
        student = waves(3, 3, shift=float(step)).requires_grad_()
        indices = torch.tensor([4, 0, 7]) + step
        monkeypatch.setattr(loss, "_other_classes", lambda _, rows=indices: (rows[:, None] + torch.arange(1, 7)) % 10)
        loss.zero_grad()
        loss.begin(torch.zeros(3, dtype=torch.long), indices, None)
        losses = loss([student], [waves(3, 5, shift=1.0 + step)])
        assert losses.shape == (3,)
        losses.mean().backward()
        banks = [(bank * waves(10, 4, shift=2.0)).sum() for bank in (loss.student_bank, loss.teacher_bank)]
        found = [losses.mean(), student.grad.norm(), loss.maps[1].weight.grad.norm(), *banks]
        close(torch.stack(found), numbers, atol=1e-7)
        close(loss.constants, [134.0622397557528, 39.570449229905854], atol=1e-6)


def test_a_certain_positive_among_impossible_negatives_costs_nothing():
    scores = torch.tensor([[60.0, -60.0, -60.0]]).double()
    assert contrast_loss(scores, torch.ones(()), num_samples=10).abs().max() < 1e-5


def test_negatives_are_of_other_classes_and_drawn_anew():
    loss, labels = built(num_samples=40, negatives=20), torch.arange(40) % 4
    loss.begin(labels, torch.arange(40), [10] * 4)
    loss([waves(40, 3)], [waves(40, 5)])
    first, again = loss._other_classes(labels), loss._other_classes(labels)
    assert torch.equal(first, again)
    loss._draws += 1
    assert not torch.equal(first, loss._other_classes(labels))
    for label, row in zip(labels, first, strict=True):
        assert len(row.unique()) == 20
        assert (labels[row] != label).all()


def test_a_second_loss_goes_on_from_the_state_of_the_first():
    first, second = built(num_samples=40), built(num_samples=40)
    for step in range(3):
        if step == 2:
            second.load_state_dict(first.state_dict())
        labels, indices = torch.arange(6) % 3, torch.arange(6) + step
        results = []
        for loss in (first, second) if step == 2 else (first,):
            loss.begin(labels, indices, None)
            results.append(loss([waves(6, 3, shift=step)], [waves(6, 5)]))
    assert torch.equal(*results)
    assert torch.equal(first.teacher_bank, second.teacher_bank)


def test_evaluation_has_no_loss_and_changes_nothing():
    loss = built().eval()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss.begin(torch.zeros(3, dtype=torch.long), None, None)
    assert loss([waves(3, 3)], [waves(3, 5)]).tolist() == [0, 0, 0]
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_half_precision_weights_are_compared_in_full_precision():
    loss = built(num_samples=40).bfloat16()
    loss.begin(torch.arange(6), torch.arange(6), None)
    losses = loss([waves(6, 3).bfloat16()], [waves(6, 5).bfloat16()])
    assert losses.dtype == torch.float32
    losses.sum().backward()
    assert losses.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"negatives": 10}, r"negatives must be in 1\.\.9, below num_samples, but is 10"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\) but is 1\.0"),
        ({"temperature": 0.0}, r"temperature must be positive but is 0\.0"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        built(**change)


@pytest.mark.parametrize(
    ("indices", "counts", "message"),
    [
        (None, None, "CRD knows each training sample by its index, which this data does not hand over"),
        (torch.arange(3), [6, 6], "num_samples must be 12, the number of training samples, but is 10"),
        (torch.arange(3), [5, 5], "negatives must be in 1..5, the samples of other classes, but is 6"),
    ],
)
def test_data_that_does_not_go_with_it_is_refused(indices, counts, message):
    with pytest.raises(InputError, match=message):
        built().begin(torch.zeros(3, dtype=torch.long), indices, counts)
    with pytest.raises(InputError, match="CRD compares one layer"):
        CRD(["a", "b"], ["c", "d"], num_samples=10)
