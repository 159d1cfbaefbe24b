"""Weights of a selection multiply a stranger's losses, however they are turned into gradients."""

from __future__ import annotations

import pytest
import torch
from foreign import Contracted, DictStranger, Manual, Scores, Stranger, fit, loader
from helpers import weights
from lightning_recipes.callbacks import InfoBatch, RandomSubset


@pytest.mark.parametrize("kind", [Stranger, DictStranger, Contracted, Manual])
def test_weights_multiply_the_losses(kind):
    """Each gradient is that of the weighted mean, worked out by hand from the scores."""
    callback = InfoBatch(delta=1.0)
    scores, model = Scores(callback), kind()
    fit(model, loader(), scores, callback, max_epochs=2)
    easy = scores.before[1] < scores.before[1].mean()
    heavy = easy.sum().item() / round(easy.sum().item() / 2)
    assert heavy > 1.5
    expected = {index: heavy if easy[index] else 1.0 for index in model.indices(1)}
    assert len(expected) == 40 - easy.sum() + round(easy.sum().item() / 2)
    assert model.epoch_weights(1) == pytest.approx(expected, rel=1e-5)


def test_one_step_equals_the_weighted_mean_by_hand():
    """SGD from the state before the batch, on ``mean(weights * losses)`` of the samples that were read."""
    callback = RandomSubset(0.6, rescale=True)  # 16 of 40, each weighs 2.5
    model, by_hand = Stranger(), Stranger()
    fit(model, loader(batch_size=16), callback, max_epochs=1)
    assert [len(step.indices) for step in model.steps] == [16]
    optimizer = torch.optim.SGD(by_hand.parameters(), 0.1, momentum=0.9)
    (2.5 * by_hand.losses(torch.tensor(model.steps[0].indices))).mean().backward()
    optimizer.step()
    assert all(torch.equal(value, weights(by_hand)[name]) for name, value in weights(model).items())


def test_accumulated_gradients_are_weighted():
    callback = InfoBatch(delta=1.0)
    scores, model, gradients = Scores(callback), Stranger(), []
    model.on_before_optimizer_step = lambda optimizer: gradients.append(model.value.grad.clone())
    run = fit(model, loader(), scores, callback, max_epochs=2, accumulate_grad_batches=3)
    short = len(model.epoch(1))
    assert short < 5
    assert run.global_step == 2 + -(-short // 3)
    easy = scores.before[1] < scores.before[1].mean()
    heavy = easy.sum() / round(easy.sum().item() / 2)
    expected = torch.zeros(40)
    for step in model.epoch(1)[:3]:
        weight = torch.where(easy[step.indices], heavy, torch.tensor(1.0))
        expected[step.indices] += weight * step.losses / len(step.indices) / 3
    torch.testing.assert_close(gradients[2], expected)


def test_bf16_mixed_gradients_are_weighted_in_float32():
    class Matrix(Stranger):
        def losses(self, indices):
            one_hot = torch.nn.functional.one_hot(indices, len(self.value)).float()
            return (one_hot @ self.value[:, None]).squeeze(1)  # bfloat16 under autocast

    model, gradients = Matrix(), []
    model.on_before_optimizer_step = lambda optimizer: gradients.append(model.value.grad.clone())
    fit(model, loader(batch_size=16), RandomSubset(0.6, rescale=True), max_epochs=1, precision="bf16-mixed")
    assert model.steps[0].losses.dtype == torch.bfloat16
    torch.testing.assert_close(gradients[0][model.steps[0].indices], torch.full((16,), 2.5 / 16), rtol=0.01, atol=0)


def test_no_weights_stay_on_the_module():
    model = Contracted()
    run = fit(model, loader(), InfoBatch(delta=1.0), max_epochs=2)
    assert model.sample_weights is None
    assert model.reduce(torch.ones(3)) == 1
    assert run.callback_metrics["selection/kept"] == len(model.indices(1)) / 40
    assert run.callback_metrics["selection/samples_saved"] == 40 - len(model.reads(1))


def test_a_module_that_returns_its_losses_trains_with_callbacks_that_need_none():
    """The baseline of InfoBatch runs in the project that InfoBatch was put into."""
    model = Stranger()
    before = model.value.detach().clone()
    fit(model, loader(), RandomSubset(0.5), max_epochs=2)
    assert len(model.indices(0)) == 20
    assert not torch.equal(before, model.value)
