import pytest
import torch
import torch.nn.functional as F
from lightning_recipes.modules.augmentation.batches import normalize, random_crop_flip, random_cutout
from torchvision.transforms.v2.functional import normalize as tv_normalize


@pytest.fixture
def images():
    return torch.randint(0, 256, (200, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def randoms():
    return torch.rand(200, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mode", ["reflect", "zero"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 2])
def test_crop_and_flip_are_those_of_the_padded_image(images, randoms, mode, flip, padding):
    result = random_crop_flip(images, randoms, padding=padding, mode=mode, flip=flip)
    assert result.dtype == torch.uint8
    padded = F.pad(images.float(), (padding,) * 4, mode="reflect" if mode == "reflect" else "constant")
    for number, (vertical, horizontal, side) in enumerate(randoms.tolist()):
        top, left = int(vertical * (2 * padding + 1)), int(horizontal * (2 * padding + 1))
        expected = padded[number, :, top : top + 9, left : left + 7]
        assert torch.equal(result[number].float(), expected.flip(-1) if flip and side < 0.5 else expected)


def test_every_place_of_the_crop_is_equally_likely():
    randoms = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    marks = torch.arange(25, dtype=torch.uint8).view(1, 1, 5, 5).expand(20_000, -1, -1, -1)
    centres = random_crop_flip(marks, randoms, padding=1, flip=False)[:, 0, 2, 2]
    counts = centres.bincount()
    assert (counts > 0).sum() == 9
    assert counts[counts > 0].min() > 2_000


def test_an_image_does_not_depend_on_its_batch(images, randoms):
    shuffled = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    whole = random_cutout(random_crop_flip(images, randoms), randoms[:, :2], size=3)
    part = random_cutout(random_crop_flip(images[shuffled], randoms[shuffled]), randoms[shuffled, :2], size=3)
    assert torch.equal(part, whole[shuffled])


def test_cutout_is_a_square_cut_off_at_the_border():
    randoms = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.99, 0.5]])
    result = random_cutout(torch.ones(3, 2, 8, 8), randoms, size=4)
    assert [int((image == 0).sum()) for image in result] == [2 * 4, 2 * 16, 2 * 2 * 4]
    assert (result[1, :, 2:6, 2:6] == 0).all()


@pytest.mark.parametrize(("side", "size"), [(28, 14), (9, 5), (8, 1), (8, 8), (5, 0)])
def test_cutout_treats_both_borders_alike(side, size):
    """All places of the centre once: as many as pixels for an odd side, one more for an even one."""
    places = side + 1 - size % 2
    randoms = torch.stack([(torch.arange(places) + 0.5) / places, torch.full((places,), 0.5)], 1)
    cut = 1 - random_cutout(torch.ones(places, 1, side, side), randoms, size=size)
    assert torch.equal(cut, cut.flip(0, 2))
    assert len({tuple(image.flatten().tolist()) for image in cut}) == (places if size > 1 else max(1, size * places))


def test_normalize_agrees_with_torchvision_and_leaves_its_input_alone(images):
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    expected = tv_normalize(images.float() / 255, list(mean), list(std))
    before, floats = images.clone(), images.float() / 255
    for given in (images, floats):
        result = normalize(given, mean, std)
        assert result.dtype == torch.float32
        assert torch.allclose(result, expected, atol=1e-5)
    assert torch.equal(images, before)
    assert torch.equal(floats, before.float() / 255)
