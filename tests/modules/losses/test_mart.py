"""MART by its formula, and by the figures of the authors' code."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning_recipes.modules.losses import mart_loss, mart_terms

ATTACKED = torch.tensor([[2.0, 1.0, -1.0], [0.5, 0.0, 3.0]])
NATURAL = torch.tensor([[3.0, 0.0, 0.0], [1.0, 2.0, 0.0]])
LABELS = torch.tensor([0, 1])


def by_hand(attacked, natural, label, beta):
    """One image, in floats."""
    q, p = ([math.exp(z) / sum(map(math.exp, logits)) for z in logits] for logits in (attacked, natural))
    wrong = max(q[k] for k in range(3) if k != label)
    divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return -math.log(q[label]) - math.log(1.0001 - wrong) + beta * divergence * (1 - p[label])


@pytest.mark.parametrize("beta", [0.0, 5.0, 6.0])
def test_formula(beta):
    """Of the second image the attacked answer is wrong, of the first it is right."""
    expected = [by_hand(*row, beta) for row in zip(ATTACKED.tolist(), NATURAL.tolist(), LABELS.tolist(), strict=True)]
    torch.testing.assert_close(mart_loss(ATTACKED, NATURAL, LABELS, beta=beta), torch.tensor(expected))


def test_gradients_flow_through_both_images():
    logits = [value.clone().double().requires_grad_() for value in (ATTACKED, NATURAL)]
    assert torch.autograd.gradcheck(lambda a, n: mart_loss(a, n, LABELS), logits)
    gradients = torch.autograd.grad(mart_loss(*logits, LABELS).sum(), logits)
    assert all(gradient.abs().sum() > 0.1 for gradient in gradients)


def test_a_natural_image_that_is_surely_right_adds_no_divergence():
    margin, divergence = mart_terms(ATTACKED, torch.tensor([[60.0, 0.0, 0.0], [0.0, 60.0, 0.0]]), LABELS)
    assert divergence.abs().max() < 1e-6
    torch.testing.assert_close(margin[0], -torch.log(1.0001 - ATTACKED[0].softmax(0)[1]))


def test_a_surely_wrong_answer_has_a_finite_loss_and_gradient():
    logits = torch.tensor([[0.0, 200.0, 0.0]], requires_grad=True)
    margin, _ = mart_terms(logits, NATURAL[:1], LABELS[:1])
    assert margin.item() == pytest.approx(math.log(1e4), rel=1e-3)
    loss = mart_loss(logits, NATURAL[:1], LABELS[:1])
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


def test_half_precision_is_computed_in_single():
    found = mart_loss(ATTACKED.bfloat16(), NATURAL.bfloat16(), LABELS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, mart_loss(ATTACKED, NATURAL, LABELS))
    # Without the margin and beta it is the cross-entropy.
    rest = mart_loss(ATTACKED, NATURAL, LABELS, beta=0.0) - mart_terms(ATTACKED, NATURAL, LABELS)[0]
    torch.testing.assert_close(rest, F.cross_entropy(ATTACKED, LABELS, reduction="none"))
