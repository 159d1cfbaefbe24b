import pytest
import torch
from lightning_recipes.modules.sample_weighting import SampleWeighting


def test_reduce_is_the_mean_without_weights():
    assert SampleWeighting().reduce(torch.tensor([1.0, 2.0, 6.0])) == 3


def test_weighted_mean_is_divided_by_the_batch_size_and_not_by_the_sum_of_weights():
    recipe = SampleWeighting()
    recipe.sample_weights = torch.tensor([2.0, 0.0, 2.0, 2.0])
    assert recipe.reduce(torch.tensor([1.0, 100.0, 2.0, 3.0])) == 12 / 4


def test_callbacks_read_the_losses_unweighted_and_detached():
    recipe = SampleWeighting()
    recipe.sample_weights = torch.tensor([2.0, 3.0])
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    recipe.reduce(losses).backward()
    assert recipe.sample_losses is not None
    assert not recipe.sample_losses.requires_grad
    assert recipe.sample_losses.tolist() == [1, 2]
    assert losses.grad is not None
    assert losses.grad.tolist() == [1, 1.5]


def test_a_mixed_image_weighs_what_its_samples_do_and_a_sample_is_scored_by_both_its_images():
    recipe = SampleWeighting()
    recipe.sample_weights = torch.tensor([2.0, 1.0, 1.0, 0.0])
    loss = recipe.reduce(torch.tensor([1.0, 2.0, 3.0, 4.0]), mixing_ratio=0.75)
    # Pairs are (0, 3) and (1, 2); weights 1.5, 1, 1, 0.5.
    assert loss == (1.5 + 2 + 3 + 2) / 4
    assert recipe.sample_losses is not None
    assert recipe.sample_losses.tolist() == [1.75, 2.25, 2.75, 3.25]


def test_a_scalar_loss_is_refused():
    with pytest.raises(ValueError, match=r"losses must have shape \(N,\), one per sample, but got \(\)"):
        SampleWeighting().reduce(torch.tensor(1.0))


def test_weights_of_another_batch_are_refused():
    recipe = SampleWeighting()
    recipe.sample_weights = torch.ones(3)
    with pytest.raises(ValueError, match=r"sample_weights has shape \(3,\) but the batch has 2 losses"):
        recipe.reduce(torch.ones(2))
