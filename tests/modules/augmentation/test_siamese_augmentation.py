import math

import pytest
import torch
from lightning_recipes.modules.augmentation.siamese import OPERATIONS, SiameseAugmentation
from lightning_recipes.modules.core.errors import InputError

IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_real_and_synthetic_batches_of_any_size_get_the_same_transform(operation):
    augment = SiameseAugmentation([operation])
    for key in range(5):
        many = augment(IMAGES, (1, key))
        torch.testing.assert_close(augment(IMAGES[:2], (1, key)), many[:2])
        # Image by image, every one gets what the first got.
        torch.testing.assert_close(torch.cat([augment(image, (1, key)) for image in IMAGES.split(1)]), many)
    assert any(not torch.equal(augment(IMAGES, (1, key)), augment(IMAGES, (2, key))) for key in range(5))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_image_has_a_transform_of_its_own_in_evaluation(operation):
    """The same image many times comes out in several ways."""
    images = SiameseAugmentation([operation])(IMAGES[:1].repeat(20, 1, 1, 1), (3,), shared=False)
    assert len({tuple(image.flatten().tolist()) for image in images}) > 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_pass_and_global_generators_stay(operation):
    state = torch.get_rng_state()
    images = IMAGES.clone().requires_grad_()
    SiameseAugmentation([operation])(images, (0,)).square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_all_operations_are_drawn_about_equally_often():
    augment = SiameseAugmentation(cutout=0.0)
    seen = dict.fromkeys(OPERATIONS, 0)
    augment.apply = lambda images, operation, randoms: seen.update({operation: seen[operation] + 1})
    for key in range(600):
        augment(IMAGES, (key, 1))
    assert all(60 < count < 140 for count in seen.values())


def test_color_by_hand():
    """u = 0.75, 0.25, 1: brighter by 0.25, half the saturation, contrast 1.5."""
    image = torch.tensor([[[[1.0, 0.0]], [[0.0, 3.0]]]])
    out = SiameseAugmentation().apply(image, "color", torch.tensor([[0.75, 0.25, 1.0]]))
    bright = image + 0.25
    grey = torch.tensor([[[[0.75, 1.75]]]])
    soft = (bright - grey) * 0.5 + grey
    torch.testing.assert_close(out, (soft - 1.25) * 1.5 + 1.25)


def test_geometry_by_hand():
    augment = SiameseAugmentation()
    centre = torch.zeros(1, 1, 9, 9)
    centre[0, 0, 4, 4] = 1
    shift = augment.apply(centre, "crop", torch.tensor([[0.0, 0.999, 0.0]]))  # k = int(9 / 8 + 0.5) = 1
    assert shift[0, 0, 5, 3] == 1
    cut = augment.apply(torch.ones(1, 1, 16, 16), "cutout", torch.tensor([[0.5, 0.5, 0.0]]))
    assert cut.sum() == 16 * 16 - 8 * 8
    assert torch.equal(augment.apply(IMAGES, "flip", torch.full((6, 3), 0.4)), IMAGES.flip(3))
    assert torch.equal(augment.apply(IMAGES, "flip", torch.full((6, 3), 0.6)), IMAGES)
    unit = torch.full((6, 3), (1 - 1 / 1.2) / (1.2 - 1 / 1.2))  # a factor of 1
    torch.testing.assert_close(augment.apply(IMAGES, "scale", unit), IMAGES, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(augment.apply(IMAGES, "rotate", torch.full((6, 3), 0.5)), IMAGES, atol=1e-5, rtol=1e-5)
    quarter = SiameseAugmentation(rotate=90.0).apply(IMAGES, "rotate", torch.ones(6, 3))
    torch.testing.assert_close(quarter, IMAGES.rot90(1, (2, 3)), atol=1e-4, rtol=1e-4)
    assert math.isfinite(quarter.sum())


@pytest.mark.parametrize("images", [IMAGES[0], (255 * IMAGES).byte()])
def test_images_must_be_a_normalised_batch(images):
    with pytest.raises(InputError, match=r"images must be floating \(N, C, H, W\)"):
        SiameseAugmentation(["flip"])(images, (0,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operations": []}, "operations must be some of"),
        ({"operations": ["zoom"]}, "zoom"),
        ({"crop": 1.5}, "crop must be in"),
        ({"scale": 0.5}, "scale must be at least 1"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(InputError, match=message):
        SiameseAugmentation(**arguments)
