"""The sets' own file formats, written small: torchvision reads them as it reads the real ones."""

import hashlib
import pickle
import struct

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets as tv
from jsonargparse import ArgumentParser
from lightning_recipes.datamodules import CIFAR10, CIFAR100, MNIST, STL10, SVHN, FashionMNIST
from lightning_recipes.modules.core.errors import InputError
from PIL import Image

CLASSES = [CIFAR10, CIFAR100, MNIST, FashionMNIST, SVHN, STL10]


def pixels(number, *shape):
    return np.random.default_rng(number).integers(0, 256, (number, *shape), dtype=np.uint8)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root, monkeypatch, reader, key, names):
    folder = root / reader.base_folder
    folder.mkdir(parents=True)
    images, sums = {}, {}
    for part in ("train_list", "test_list"):
        images[part] = []
        for number, (name, _) in enumerate(getattr(reader, part)):
            data = pixels(20 + number, 3072)
            labels = [index % 10 for index in range(len(data))]
            (folder / name).write_bytes(pickle.dumps({"data": data, key: labels}))
            images[part].append(data.reshape(-1, 3, 32, 32))
            sums[name] = md5(folder / name)
        monkeypatch.setattr(reader, part, [(name, sums[name]) for name, _ in getattr(reader, part)])
    meta = folder / reader.meta["filename"]
    meta.write_bytes(pickle.dumps({reader.meta["key"]: names}))
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": md5(meta)})
    return np.concatenate(images["train_list"]), np.concatenate(images["test_list"])


def write_mnist(root, reader):
    folder = root / reader.__name__ / "raw"
    folder.mkdir(parents=True)
    images = []
    for part, number in (("train", 60), ("t10k", 20)):
        data = pixels(number, 28, 28)
        header = struct.pack(">IIII", 0x803, number, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + data.tobytes())
        labels = (np.arange(number) % 10).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, number) + labels.tobytes())
        images.append(data[:, None])
    return images


def write_svhn(root, monkeypatch):
    root.mkdir()
    images, listed = [], {}
    for part, number in (("train", 60), ("test", 20)):
        data = pixels(number, 32, 32, 3)
        path = root / f"{part}_32x32.mat"
        scipy.io.savemat(path, {"X": data.transpose(1, 2, 3, 0), "y": (np.arange(number) % 10 + 1)[:, None]})
        listed[part] = [None, path.name, md5(path)]
        images.append(data.transpose(0, 3, 1, 2))
    monkeypatch.setattr(tv.SVHN, "split_list", listed)
    return images


def write_stl10(root, monkeypatch):
    folder = root / tv.STL10.base_folder
    folder.mkdir(parents=True)
    images = []
    for part, number in (("train", 60), ("test", 20)):
        data = pixels(number, 3, 96, 96)
        (folder / f"{part}_X.bin").write_bytes(data.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{part}_y.bin").write_bytes((np.arange(number) % 10 + 1).astype(np.uint8).tobytes())
        images.append(data)
    (folder / "unlabeled_X.bin").write_bytes(b"")
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(tv.STL10, part, [[name, md5(folder / name)] for name, _ in getattr(tv.STL10, part)])
    return images


@pytest.fixture
def write(tmp_path, monkeypatch):
    def write(cls):
        root = tmp_path / "data"
        if cls is CIFAR10:
            return root, write_cifar(root, monkeypatch, tv.CIFAR10, "labels", list(cls.class_names))
        if cls is CIFAR100:
            return root, write_cifar(root, monkeypatch, tv.CIFAR100, "fine_labels", list(cls.class_names))
        if cls in (MNIST, FashionMNIST):
            return root, write_mnist(root, cls._reader)
        return root, write_svhn(root, monkeypatch) if cls is SVHN else write_stl10(root, monkeypatch)

    return write


@pytest.mark.parametrize("cls", CLASSES)
def test_images_are_those_in_the_files(cls, write):
    root, (train, test) = write(cls)
    # CIFAR-100 has 20 images of 10 of its 100 classes here.
    datamodule = cls(str(root), batch_size=8)
    datamodule.prepare_data()
    for stage in ("fit", "test"):
        datamodule.setup(stage)
    assert torch.equal(datamodule.test_set.images, torch.from_numpy(test))
    assert datamodule.test_set.labels[:3].tolist() == ([1, 2, 3] if cls is SVHN else [0, 1, 2])
    assert len(datamodule.train_set) + len(datamodule.val_set) == len(train)
    ours = {image.tobytes() for part in (datamodule.train_set, datamodule.val_set) for image in part.images.numpy()}
    assert ours == {image.tobytes() for image in train}
    images, labels = datamodule.on_after_batch_transfer(next(iter(datamodule.train_dataloader())), 0)
    assert images.shape == (8, datamodule.in_chans, datamodule.image_size, datamodule.image_size)
    assert labels.max() < datamodule.num_classes


def as_the_model_gets_them(datamodule, loader):
    """All images of a loader in [0, 1], and what came out of the files, in the same order."""
    loader = getattr(datamodule, loader)()
    pairs = [(datamodule.on_after_batch_transfer(batch, 0)[0], batch[0]) for batch in loader]
    images, files = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (datamodule.mean, datamodule.std))
    return images * std + mean, files


def by_pillow(images, size):
    """Images in [0, 1] resized channel by channel, without rounding, and cut to [0, 1] in the end."""
    channels = images.flatten(0, 1).numpy()
    resized = [Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC) for channel in channels]
    return torch.from_numpy(np.stack(resized)).unflatten(0, images.shape[:2]).clamp(0, 1)


@pytest.mark.parametrize(("cls", "size"), [(CIFAR10, 80), (CIFAR10, 20), (MNIST, 32), (STL10, 32)])
def test_evaluation_resizes_like_pillow(cls, size, write):
    root, _ = write(cls)
    datamodule = cls(str(root), image_size=size)
    datamodule.setup("fit")
    datamodule.setup("test")
    for loader in ("val_dataloader", "test_dataloader"):
        images, files = as_the_model_gets_them(datamodule, loader)
        assert images.shape[-2:] == (size, size)
        torch.testing.assert_close(images, by_pillow(files / 255, size), rtol=0, atol=1e-5)


def test_training_crops_and_transforms_the_own_images_and_resizes_then(write):
    root, _ = write(CIFAR10)
    shapes = set()

    def darker(image):
        shapes.add(tuple(image.shape))
        return image / 2

    def augmented(**options):
        datamodule = CIFAR10(str(root), batch_size=20, seed=3, transform=darker, **options)
        datamodule.setup("fit")
        return as_the_model_gets_them(datamodule, "train_dataloader")[0]

    small, large = augmented(), augmented(image_size=64)
    assert shapes == {(1, 3, 32, 32)}
    assert large.shape[1:] == (3, 64, 64)
    torch.testing.assert_close(large, by_pillow(small, 64), rtol=0, atol=1e-5)


def test_cutout_counts_resized_pixels(write):
    root, _ = write(CIFAR10)
    datamodule = CIFAR10(str(root), image_size=64, cutout=20, batch_size=90, seed=0)
    datamodule.setup("fit")
    images, _ = datamodule.on_after_batch_transfer(next(iter(datamodule.train_dataloader())), 0)
    assert (images == 0).all(1).flatten(1).sum(1).max() == 400


def test_the_resulting_size_is_known_at_once_and_exported_with_the_way_to_it():
    resized, own, same = CIFAR10("/nowhere", image_size=224), CIFAR10("/nowhere"), CIFAR10("/nowhere", image_size=32)
    assert (resized.image_size, dict(resized.preprocessing)) == (224, {"crop_pct": 1.0, "interpolation": "bicubic"})
    assert (own.image_size, dict(own.preprocessing)) == (same.image_size, dict(same.preprocessing)) == (32, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1, or none but is 0"),
        ({"image_size": 224, "crop_padding": 32}, r"crop_padding must be in \[0, 32\) but is 32"),
    ],
)
def test_sizes_that_cannot_be_are_named(options, message):
    with pytest.raises(InputError, match=message):
        CIFAR10("/nowhere", **options)
    CIFAR10("/nowhere", image_size=16, crop_padding=31)


def test_size_and_long_tail_can_be_chosen_on_the_command_line():
    parser = ArgumentParser()
    parser.add_subclass_arguments(CIFAR10, "data")
    parsed = parser.parse_args(["--data", "CIFAR10", "--data.image_size", "224", "--data.imbalance_ratio", "100"])
    datamodule = parser.instantiate(parsed).data
    assert (datamodule.image_size, datamodule.imbalance_ratio) == (224, 100.0)


@pytest.mark.parametrize("cls", CLASSES)
def test_missing_data_says_how_to_get_it(cls, tmp_path):
    with pytest.raises(InputError, match=rf"{cls.__name__} not found in .*--data.download true.*RECIPES_DATA"):
        cls(str(tmp_path)).setup("fit")


def test_root_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RECIPES_DATA", str(tmp_path))
    assert CIFAR10().root == str(tmp_path)
    monkeypatch.delenv("RECIPES_DATA")
    assert CIFAR10().root == "data"


def test_a_failed_download_gives_its_reason_in_one_line(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("<urlopen error\nName or service not known>")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", no_network)
    datamodule = CIFAR10(str(tmp_path), download=True)
    with pytest.raises(
        InputError, match=r"CIFAR10 could not be downloaded to .*: .*Name or service not known"
    ) as error:
        datamodule.prepare_data()
    assert "\n" not in str(error.value)
