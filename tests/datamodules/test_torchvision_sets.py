"""The sets' own file formats, written small: torchvision reads them as it reads the real ones."""

import hashlib
import pickle
import struct

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets as tv
from lightning_recipes.datamodules import CIFAR10, CIFAR100, MNIST, STL10, SVHN, FashionMNIST
from lightning_recipes.modules.errors import InputError

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
