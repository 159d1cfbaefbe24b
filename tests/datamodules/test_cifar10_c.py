"""CIFAR-10-C from files of its layout, written small."""

import numpy as np
import pytest
import torch
from lightning_recipes.datamodules import CIFAR10, CIFAR10C
from lightning_recipes.modules.core.errors import InputError

# Four test images at each of five severities; the labels repeat.
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
LABELS = np.tile(np.array([3, 8, 8, 0], dtype=np.uint8), 5)


@pytest.fixture
def root(tmp_path):
    (folder := tmp_path / "CIFAR-10-C").mkdir()
    np.save(folder / "fog.npy", IMAGES)
    np.save(folder / "labels.npy", LABELS)
    return str(tmp_path)


@pytest.mark.parametrize(("severity", "rows"), [(1, slice(0, 4)), (5, slice(16, 20)), (None, slice(0, 20))])
def test_a_severity_is_a_fifth_of_the_file(root, severity, rows):
    data = CIFAR10C(root, corruption="fog", severity=severity, eval_batch_size=50)
    data.setup("test")
    images, labels = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert labels.tolist() == LABELS[rows].tolist()
    pixels = torch.from_numpy(IMAGES[rows]).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CIFAR10.mean, CIFAR10.std))
    torch.testing.assert_close(images, (pixels - mean) / std)


def test_what_is_missing_is_named_with_what_is_there(root, tmp_path):
    with pytest.raises(InputError, match=r"corruption snow needs snow.npy in .*CIFAR-10-C, which has fog"):
        CIFAR10C(root, corruption="snow").setup("test")
    with pytest.raises(InputError, match="which has none"):
        CIFAR10C(str(tmp_path / "elsewhere"), corruption="fog").setup("test")
    with pytest.raises(InputError, match="severity must be 1 to 5, or none but is 6"):
        CIFAR10C(root, severity=6)


def test_a_file_cut_short_is_refused(root, tmp_path):
    np.save(tmp_path / "CIFAR-10-C" / "fog.npy", IMAGES[:15])
    with pytest.raises(InputError, match=r"they have shapes \(15, 32, 32, 3\) and \(20,\)"):
        CIFAR10C(root, corruption="fog").setup("test")


def test_training_images_are_those_of_cifar10(root):
    with pytest.raises(InputError, match="not found in"):
        CIFAR10C(root, corruption="fog").setup("fit")
