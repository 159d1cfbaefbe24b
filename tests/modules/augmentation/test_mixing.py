import numpy as np
import pytest
import torch
from lightning_recipes.modules.augmentation.mixing import Mixing
from lightning_recipes.modules.core.errors import InputError


def batch(size=6):
    # Each image holds its own index everywhere, so a mixed pixel tells the ratio.
    images = torch.arange(size, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone()
    return images, torch.arange(size)


@pytest.mark.parametrize("size", [6, 7])
def test_mixup_blends_images_and_labels_by_the_same_ratio(size):
    images, labels = batch(size)
    mixed, probabilities, ratio = Mixing(size, mixup=1.0)(images, labels, key=(0, 0))
    assert 0 < ratio < 1
    torch.testing.assert_close(probabilities[0, 0], torch.tensor(ratio, dtype=torch.float32))
    torch.testing.assert_close(probabilities[0, size - 1], torch.tensor(1 - ratio, dtype=torch.float32))
    torch.testing.assert_close(mixed[:, 0, 0, 0], ratio * labels + (1 - ratio) * labels.flip(0))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(size))


def test_cutmix_labels_follow_the_area_of_the_box():
    images, labels = batch()
    mixed, probabilities, _ = Mixing(6, cutmix=1.0)(images, labels, key=(3,))
    kept = (mixed[0] == 0).float().mean()
    assert 0 < kept < 1
    torch.testing.assert_close(probabilities[0, 0], kept)


def test_the_draw_depends_on_the_key_alone_and_leaves_the_global_generator_as_it_was():
    images, labels = batch()
    mixing = Mixing(6, mixup=1.0, cutmix=1.0)
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    first = mixing(images, labels, key=(1, 2, 3))
    assert (np.random.get_state()[1] == before).all()
    np.random.seed(8)
    assert torch.equal(mixing(images, labels, key=(1, 2, 3))[0], first[0])
    assert not torch.equal(mixing(images, labels, key=(1, 2, 4))[1], first[1])


def test_the_given_images_are_left_as_they_are():
    images, labels = batch()
    Mixing(6, mixup=1.0)(images, labels, key=(0,))
    assert torch.equal(images, batch()[0])


def test_soft_labels_are_mixed_too():
    images, labels = batch()
    soft = torch.eye(6)[labels]
    mixing = Mixing(6, mixup=1.0)
    torch.testing.assert_close(mixing(images, soft, key=(0,))[1], mixing(images, labels, key=(0,))[1])


def test_probability_zero_mixes_nothing():
    images, labels = batch()
    mixed, probabilities, ratio = Mixing(6, mixup=1.0, probability=0.0)(images, labels, key=(0,))
    assert torch.equal(mixed, images)
    assert torch.equal(probabilities, torch.eye(6))
    assert ratio == 1


@pytest.mark.parametrize(("arguments", "word"), [({"mixup": -1}, "mixup"), ({"probability": 2}, "mix_probability")])
def test_arguments_out_of_range_are_refused(arguments, word):
    with pytest.raises(InputError, match=word):
        Mixing(10, **arguments)
