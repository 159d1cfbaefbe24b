import random
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning_recipes.datamodules import ImageFolder
from lightning_recipes.modules.core.errors import InputError
from PIL import Image


def write(root, parts=("train", "test"), *, number=10, size=12, mode="RGB", names=("cat", "dog")):
    """Random images in ``root/<part>/<class>/<index>.png``."""
    generator = np.random.default_rng(0)
    for part in parts:
        for name in names:
            (root / part / name).mkdir(parents=True)
            for index in range(number):
                image = Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8))
                image.convert(mode).save(root / part / name / f"{index:02d}.png")
    return str(root)


def ready(root, *stages, **options):
    datamodule = ImageFolder(root, **{"image_size": 12, "batch_size": 4, "num_workers": 0, "seed": 1} | options)
    for stage in stages or ("fit",):
        datamodule.setup(stage)
    return datamodule


def batches(datamodule, loader="train_dataloader", epoch=0):
    loader = getattr(datamodule, loader)()
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(epoch)
    return [datamodule.on_after_batch_transfer(batch, 0) for batch in loader]


def same(one, other):
    return all(torch.equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))


def test_the_facts_a_network_needs_are_known_at_once(tmp_path):
    datamodule = ImageFolder(write(tmp_path), in_chans=1, mean=[0.5], std=[0.5])
    assert (datamodule.num_classes, datamodule.in_chans, datamodule.image_size) == (2, 1, 224)
    assert datamodule.class_names == ("cat", "dog")
    assert datamodule.mean == (0.5,)


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_indices_of_a_training_batch_are_known_after_its_transfer(tmp_path, in_memory):
    datamodule = ready(write(tmp_path), in_memory=in_memory)
    seen = []
    for batch in datamodule.train_dataloader():
        labels = datamodule.on_after_batch_transfer(batch, 0)[1]
        assert torch.equal(labels, datamodule.train_set.labels[datamodule.batch_indices.long()])
        seen += datamodule.batch_indices.tolist()
    assert len(set(seen)) == len(seen) == 16


@pytest.mark.parametrize("in_memory", [True, False])
def test_parts_are_used_for_what_they_are_named(tmp_path, in_memory):
    root = write(tmp_path, ("train", "val", "test"))
    datamodule = ready(root, "fit", "test", in_memory=in_memory)
    assert [len(part) for part in (datamodule.train_set, datamodule.val_set, datamodule.test_set)] == [20, 20, 20]


@pytest.mark.parametrize("in_memory", [True, False])
def test_without_a_test_folder_val_is_the_test_set(tmp_path, in_memory):
    root = write(tmp_path, ("train", "val"))
    with pytest.warns(UserWarning, match="val folder is the test set"):
        datamodule = ready(root, "fit", "test", in_memory=in_memory)
    assert [len(part) for part in (datamodule.train_set, datamodule.val_set, datamodule.test_set)] == [18, 2, 20]


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_long_tail_is_cut_out_of_any_folder(tmp_path, in_memory):
    datamodule = ready(write(tmp_path, names=("cat", "dog", "owl")), in_memory=in_memory, imbalance_ratio=4)
    assert datamodule.class_counts == [9, 4, 2]
    assert len(datamodule.train_set) == 15
    assert len(datamodule.val_set) == 3


def test_bare_class_folders_are_for_training(tmp_path):
    write(tmp_path, ("train",))
    datamodule = ready(str(tmp_path / "train"))
    assert len(datamodule.train_set) == 18
    with pytest.raises(InputError, match="has no test images: put them in"):
        datamodule.setup("test")


def test_images_in_memory_are_those_of_the_files(tmp_path):
    root = write(tmp_path)
    datamodule = ready(root, "test", "predict", in_memory=True, mean=[0.0] * 3, std=[1.0] * 3)
    images = torch.cat([images for images, _ in batches(datamodule, "predict_dataloader")])
    assert len(datamodule.predict_names) == len(images) == 20
    for image, name in zip(images, datamodule.predict_names, strict=True):
        assert np.array_equal((image * 255).round().permute(1, 2, 0).numpy(), np.asarray(Image.open(name)))


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("in_chans", "mode"), [(3, "L"), (3, "RGBA"), (3, "P"), (1, "RGB"), (1, "L")])
def test_channels_and_size_are_converted(tmp_path, in_memory, in_chans, mode):
    root = write(tmp_path, size=15, mode=mode)
    datamodule = ready(root, "fit", "test", in_memory=in_memory, in_chans=in_chans)
    for loader in ("train_dataloader", "test_dataloader"):
        images, labels = batches(datamodule, loader)[0]
        assert images.shape == (4, in_chans, 12, 12)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64


def test_grey_files_stay_exact_with_one_channel(tmp_path):
    root = write(tmp_path, mode="L")
    datamodule = ready(root, "test", in_memory=True, in_chans=1)
    assert np.array_equal(datamodule.test_set.images[0, 0].numpy(), np.asarray(Image.open(f"{root}/test/cat/00.png")))


AUGMENTED = {"auto_augment": "rand-m9-mstd0.5", "random_erasing": 0.5, "interpolation": "random", "cutout": 3}


def test_augmentation_is_the_same_with_workers_and_new_in_each_epoch(tmp_path):
    root = write(tmp_path)
    alone, workers = ready(root, **AUGMENTED), ready(root, **AUGMENTED, num_workers=2)
    loader = workers.train_dataloader()
    for epoch in range(3):
        expected = batches(alone, epoch=epoch)
        # One loader, so that its workers outlive the epoch.
        loader.sampler.set_epoch(epoch)
        assert same([workers.on_after_batch_transfer(batch, 0) for batch in loader], expected)
    assert not same(batches(alone, epoch=0), batches(alone, epoch=1))
    assert not same(batches(alone), batches(ready(root, **AUGMENTED, seed=2)))


def test_evaluation_is_not_augmented(tmp_path):
    root = write(tmp_path)
    one, other = ready(root, "fit", "test", **AUGMENTED), ready(root, "fit", "test", seed=7)
    for loader in ("val_dataloader", "test_dataloader"):
        assert same(batches(one, loader), batches(other, loader))


def test_global_generators_are_left_alone(tmp_path):
    root = write(tmp_path)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for num_workers in (0, 2):
        datamodule = ready(root, "fit", "test", num_workers=num_workers, **AUGMENTED)
        batches(datamodule)
        batches(datamodule, "test_dataloader")
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("in_memory", [True, False])
def test_predict_dir_needs_no_classes(tmp_path, in_memory):
    root = write(tmp_path / "data")
    write(tmp_path / "new", ("a",), number=3)
    datamodule = ready(root, "predict", in_memory=in_memory, predict_dir=str(tmp_path / "new"))
    labels = torch.cat([labels for _, labels in batches(datamodule, "predict_dataloader")])
    assert labels.tolist() == [-1] * 6
    assert datamodule.predict_names[0].endswith("cat/00.png")
    with pytest.raises(InputError, match="holds no images"):
        ready(root, "predict", predict_dir=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_corrupt_file_stops_with_its_name(tmp_path, num_workers):
    root = write(tmp_path)
    (tmp_path / "train/cat/03.png").write_bytes(b"no image")
    datamodule = ready(root, num_workers=num_workers, batch_size=3)
    with pytest.raises(InputError, match=r"03.png cannot be read as an image .*skip_corrupt true") as error:
        [batches(datamodule, loader) for loader in ("train_dataloader", "val_dataloader")]
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"03.png cannot be read as an image"):
        ready(root, in_memory=True)


@pytest.mark.parametrize("options", [{"in_memory": True}, {"num_workers": 2}, {}])
def test_skip_corrupt_takes_the_next_file_of_the_class_and_counts(tmp_path, options):
    root = write(tmp_path, ("train", "test"))
    for name in ("cat/03.png", "cat/04.png", "dog/09.png"):
        path = tmp_path / "test" / name
        path.write_bytes(path.read_bytes()[:60])
    datamodule = ready(root, "test", skip_corrupt=True, **options)
    images = torch.cat([images for images, _ in batches(datamodule, "test_dataloader")])
    for place, replacement in ((3, 5), (4, 5), (19, 10)):
        assert torch.equal(images[place], images[replacement])
    assert len(datamodule.corrupt_files) == 3
    with pytest.warns(UserWarning, match=r"3 image files could not be read .*cat/03.png"):
        datamodule.teardown("test")


def test_a_class_without_any_readable_file_is_named(tmp_path):
    root = write(tmp_path, number=2)
    for index in range(2):
        (tmp_path / f"train/dog/{index:02d}.png").write_bytes(b"")
    with pytest.raises(InputError, match="train/dog has no image that can be read"):
        ready(root, skip_corrupt=True, in_memory=True)


def test_folders_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no image folder at .*nowhere.*RECIPES_DATA"):
        ImageFolder(str(tmp_path / "nowhere"))
    (tmp_path / "empty/train").mkdir(parents=True)
    with pytest.raises(InputError, match="no class folders in"):
        ImageFolder(str(tmp_path / "empty"))
    (tmp_path / "classes/train/cat").mkdir(parents=True)
    with pytest.raises(InputError, match=r"class folder .*train/cat holds no images"):
        ready(str(tmp_path / "classes"))
    root = write(tmp_path / "more")
    write(tmp_path / "more", ("test",), names=("eel",))
    with pytest.raises(InputError, match="test is the only part with a class folder 'eel'"):
        ready(root, "test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1 but is 0"),
        ({"in_chans": 2}, "in_chans must be 1 or 3 but is 2"),
        ({"mean": [0.5]}, "mean must be 3 numbers"),
        ({"scale": (0.5, 2.0)}, "scale must be"),
        ({"crop_pct": 0.0}, "crop_pct must be"),
        ({"random_erasing": 2.0}, "random_erasing must be"),
        ({"color_jitter": -1.0}, "color_jitter must be"),
        ({"auto_augment": "nonsense"}, "auto_augment='nonsense' is no policy of timm's"),
        ({"in_memory": True, "auto_augment": "rand-m9"}, "in_memory must be false for auto_augment"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_a_bad_argument_is_named(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ImageFolder(write(tmp_path), **options)


def test_it_can_be_chosen_on_the_command_line(tmp_path):
    parser = ArgumentParser()
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    arguments = ["--data", "ImageFolder", "--data.root", write(tmp_path), "--data.batch_size", "8"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datamodule = parser.instantiate(parser.parse_args([*arguments, "--data.mean", "[0.5,0.5,0.5]"])).data
    assert datamodule.batch_size == 8
    assert datamodule.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"crop_pct": 0.5, "interpolation": "random"}, {"crop_pct": 0.5, "interpolation": "bicubic"}),
        ({"in_memory": True}, {"crop_pct": 1.0, "interpolation": "bicubic"}),
    ],
)
def test_what_evaluation_does_to_an_image_can_be_repeated_from_preprocessing(tmp_path, arguments, expected):
    (tmp_path / "train" / "a").mkdir(parents=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 32, 3), dtype=np.uint8))
    image.save(tmp_path / "train" / "a" / "0.png")
    data = ImageFolder(str(tmp_path), image_size=16, num_workers=0, **arguments)
    assert data.preprocessing == expected
    side = round(16 / expected["crop_pct"])
    whole = image.resize((side, round(side * 48 / 32)), Image.Resampling.BICUBIC)
    left, top = (whole.width - 16) // 2, (whole.height - 16) // 2
    by_hand = np.asarray(whole.crop((left, top, left + 16, top + 16))).transpose(2, 0, 1)
    difference = data._eval_transform(image).numpy().astype(int) - by_hand
    # The cut before or after resizing rounds its edges otherwise.
    assert np.abs(difference[:, 2:-2, 2:-2]).max() <= (0 if not arguments.get("in_memory") else 2)
