"""What all image datamodules share, tried on the one that needs no files."""

import random
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning_recipes.datamodules import CIFAR10, Digits
from lightning_recipes.modules.core.errors import InputError

AUGMENTED = {"crop_padding": 1, "flip": True, "cutout": 3, "seed": 5}


def ready(*stages, **options):
    datamodule = Digits(**options)
    for stage in stages or ("fit",):
        datamodule.setup(stage)
    return datamodule


def epoch_batches(datamodule, epoch=0):
    loader = datamodule.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [datamodule.on_after_batch_transfer(batch, 0) for batch in loader]


def by_index(datamodule, epoch=0):
    """Each training image as the model sees it, by its index."""
    loader = datamodule.train_dataloader()
    loader.sampler.set_epoch(epoch)
    images = torch.cat([datamodule.on_after_batch_transfer(batch, 0)[0] for batch in loader])
    order = torch.tensor(list(loader.sampler)[: len(images)])
    result = torch.full((len(datamodule.train_set), *images.shape[1:]), float("nan"))
    result[order] = images
    return result[: order.max() + 1], torch.zeros(len(result), dtype=torch.bool).index_fill(0, order, True)


def test_the_facts_a_network_needs_are_known_without_data():
    datamodule = CIFAR10("/nowhere")
    assert (datamodule.num_classes, datamodule.in_chans, datamodule.image_size) == (10, 3, 32)
    assert len(datamodule.mean) == len(datamodule.std) == 3
    assert datamodule.class_names[3] == "cat"


def test_digits_are_split_as_documented():
    datamodule = ready("fit", "test", val_fraction=0.1)
    assert len(datamodule.train_set) + len(datamodule.val_set) == 1257
    assert len(datamodule.test_set) == 540
    assert datamodule.val_set.labels.bincount().min() >= 11
    images = torch.cat([datamodule.train_set.images, datamodule.val_set.images]).float() / 255
    assert images.mean().item() == pytest.approx(datamodule.mean[0], abs=1e-3)
    assert images.std().item() == pytest.approx(datamodule.std[0], abs=1e-3)


def test_a_batch_is_normalised_floats_and_labels():
    datamodule = ready(batch_size=32)
    batches = epoch_batches(datamodule)
    images, labels = batches[0]
    assert images.shape == (32, 1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert {len(images) for images, _ in batches} == {32}
    everything = torch.cat([images for images, _ in batches])
    assert abs(everything.mean()) < 0.05
    assert abs(everything.std() - 1) < 0.05
    assert len(ready(batch_size=5000).train_dataloader()) == 1


def test_the_data_set_is_an_ordinary_one_for_strangers():
    image, label = ready().train_set[3]
    assert image.dtype == torch.uint8
    assert image.shape == (1, 8, 8)
    assert type(label) is int


def test_converted_and_foreign_batches_pass_through():
    datamodule = ready(**AUGMENTED)
    batch = epoch_batches(datamodule)[0]
    assert datamodule.on_after_batch_transfer(batch, 0) is batch
    assert datamodule.on_after_batch_transfer({"a": 1}, 0) == {"a": 1}


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    reference, seen = by_index(ready(batch_size=64, **AUGMENTED))
    others, also = by_index(ready(batch_size=50, num_workers=2, **AUGMENTED))
    both = seen & also
    assert both.sum() > 1000
    assert torch.equal(reference[both[: len(reference)]], others[both[: len(others)]])
    for changed in (by_index(ready(batch_size=64, **AUGMENTED), epoch=1), by_index(ready(**AUGMENTED | {"seed": 6}))):
        both = seen & changed[1]
        same = (reference[both[: len(reference)]] == changed[0][both[: len(changed[0])]]).flatten(1).all(1)
        assert same.float().mean() < 0.1


def test_two_processes_read_the_joint_batches_of_one():
    class FakeTrainer:
        world_size = 2
        strategy = type("Strategy", (), {"root_device": torch.device("cpu")})
        precision_plugin = pl.plugins.Precision()

    alone = epoch_batches(ready(batch_size=32, **AUGMENTED))
    ranks = []
    for rank in range(2):
        datamodule = ready(batch_size=16, **AUGMENTED)
        datamodule.trainer = FakeTrainer()
        datamodule.trainer.global_rank = rank
        ranks.append(epoch_batches(datamodule))
    assert len(ranks[0]) == len(ranks[1]) == len(alone)
    for (images, labels), (even, _), (odd, odd_labels) in zip(alone, *ranks, strict=True):
        assert torch.equal(images[0::2], even)
        assert torch.equal(images[1::2], odd)
        assert torch.equal(labels[1::2], odd_labels)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_indices_of_a_training_batch_are_known_after_its_transfer(num_workers):
    datamodule = ready("fit", batch_size=32, flip=False, crop_padding=0, num_workers=num_workers)
    plain = datamodule._normalized(datamodule.train_set.images)
    for batch in datamodule.train_dataloader():
        images, labels = datamodule.on_after_batch_transfer(batch, 0)
        assert torch.equal(images, plain[datamodule.batch_indices])
        assert torch.equal(labels, datamodule.train_set.labels[datamodule.batch_indices])
    datamodule.on_after_batch_transfer(next(iter(datamodule.val_dataloader())), 0)
    assert datamodule.batch_indices is None


def test_evaluation_is_in_order_and_not_augmented():
    plain, augmented = ready("fit", "test"), ready("fit", "test", **AUGMENTED)
    for loader in ("val_dataloader", "test_dataloader"):
        pairs = [
            torch.cat([datamodule.on_after_batch_transfer(batch, 0)[0] for batch in getattr(datamodule, loader)()])
            for datamodule in (plain, augmented)
        ]
        assert torch.equal(*pairs)


def test_test_images_are_read_for_test_and_prediction_only():
    assert ready("fit", "validate").test_set is None
    datamodule = ready("predict")
    assert datamodule.train_set is None
    assert datamodule.predict_names[12] == "test/00012"
    assert len(datamodule.predict_names) == sum(len(labels) for _, labels in datamodule.predict_dataloader())


def test_no_validation_split_validates_on_training_images_and_says_so():
    with pytest.warns(UserWarning, match="val_fraction is 0"):
        datamodule = ready(val_fraction=0)
    assert len(datamodule.train_set) == 1257
    assert len(datamodule.val_set) == pytest.approx(126, abs=5)
    known = {image.numpy().tobytes() for image in datamodule.train_set.images}
    assert all(image.numpy().tobytes() in known for image in datamodule.val_set.images)


@pytest.mark.parametrize(("batch_size", "left_out"), [(128, 107), (64, 43), (1200, 0)])
def test_a_warning_says_how_many_images_an_epoch_leaves_out(batch_size, left_out):
    datamodule = ready(batch_size=batch_size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = datamodule.train_dataloader()
    assert sum(len(batch[1]) for batch in loader) == 1131 - left_out
    assert [f"leaves out {left_out} of 1131" in str(warning.message) for warning in caught] == [True] * (left_out > 57)


def test_subset_is_stratified_and_leaves_validation_alone():
    whole, few, half = ready(), ready(subset=7), ready(subset=0.5)
    assert few.train_set.labels.bincount().tolist() == [7] * 10
    counts = whole.train_set.labels.bincount()
    assert ((half.train_set.labels.bincount() - counts / 2).abs() <= 0.5).all()
    assert torch.equal(few.val_set.images, whole.val_set.images)


def test_a_long_tail_is_cut_out_of_what_the_split_leaves():
    whole, tail = ready("fit", "test"), ready("fit", "test", imbalance_ratio=20)
    before = whole.train_set.labels.bincount()
    expected = [int(before.max() * 0.05 ** (index / 9)) for index in range(10)]
    assert tail.train_set.labels.bincount().tolist() == [min(pair) for pair in zip(expected, before, strict=True)]
    assert tail.train_set.labels.bincount().tolist()[0::9] == [before[0], expected[9]]
    known = {image.numpy().tobytes() for image in whole.train_set.images}
    assert all(image.numpy().tobytes() in known for image in tail.train_set.images)
    assert torch.equal(tail.val_set.images, whole.val_set.images)
    assert torch.equal(tail.test_set.images, whole.test_set.images)
    assert torch.equal(ready(imbalance_ratio=20, seed=9).train_set.images, tail.train_set.images)
    assert torch.equal(ready(imbalance_ratio=1).train_set.images, whole.train_set.images)


def test_subset_and_label_noise_come_after_the_long_tail():
    tail, half = ready(imbalance_ratio=20), ready(imbalance_ratio=20, subset=0.5)
    counts = torch.tensor(tail.class_counts)
    assert ((torch.tensor(half.class_counts) - counts / 2).abs() <= 0.5).all()
    noisy = ready(imbalance_ratio=20, label_noise=0.3)
    assert torch.equal(noisy.train_set.images, tail.train_set.images)
    assert (noisy.train_set.labels != tail.train_set.labels).float().mean() == pytest.approx(0.3, abs=0.002)


def test_class_counts_are_those_of_the_labels_training_sees(monkeypatch):
    assert Digits().class_counts == []
    assert ready("test").class_counts == []
    for options in ({}, {"imbalance_ratio": 20}, {"imbalance_ratio": 20, "subset": 3, "label_noise": 0.3}):
        datamodule = ready("validate", **options)
        assert datamodule.class_counts == [(datamodule.train_set.labels == k).sum().item() for k in range(10)]
    monkeypatch.setattr(Digits, "num_classes", 11)
    assert ready().class_counts[10:] == [0]


def test_label_noise_changes_its_share_of_training_labels_only():
    clean, noisy = ready(), ready(label_noise=0.3)
    assert torch.equal(clean.train_set.images, noisy.train_set.images)
    changed = (clean.train_set.labels != noisy.train_set.labels).float().mean()
    assert changed == pytest.approx(0.3, abs=0.001)
    assert torch.equal(clean.val_set.labels, noisy.val_set.labels)
    assert torch.equal(noisy.train_set.labels, ready(label_noise=0.3, seed=9).train_set.labels)
    assert not torch.equal(noisy.train_set.labels, ready(label_noise=0.3, split_seed=1).train_set.labels)


def test_seed_defaults_to_lightnings(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    options = {key: value for key, value in AUGMENTED.items() if key != "seed"}
    assert torch.equal(epoch_batches(ready(**options))[0][0], epoch_batches(ready(**AUGMENTED))[0][0])


def test_extra_transform_gets_single_images_and_is_seeded_for_each():
    shapes = []

    def jitter(image):
        shapes.append(image.shape)
        assert 0 <= image.min() <= image.max() <= 1
        return image * (0.5 + random.random() * np.random.rand() * torch.rand(()))

    options = {"subset": 10, "val_fraction": 0.5, "seed": 5, "transform": jitter}
    first, _ = by_index(ready(batch_size=10, **options))
    again, _ = by_index(ready(batch_size=25, **options))
    assert set(shapes) == {(1, 1, 8, 8)}
    assert torch.equal(first, again)
    assert not torch.equal(first, by_index(ready(batch_size=10, **options), epoch=1)[0])


def test_extra_transform_that_changes_the_shape_is_refused():
    with pytest.raises(InputError, match=r"transform must return the shape it is given, \(1, 1, 8, 8\), but"):
        epoch_batches(ready(transform=lambda image: image[0]))


@pytest.mark.parametrize("precision", ["32-true", "16-true", "bf16-true"])
def test_precision_changes_the_type_of_images_and_not_their_augmentation(precision):
    seen = []

    class Module(pl.LightningModule):
        def training_step(self, batch, batch_idx):
            seen.append(batch[0])

        def configure_optimizers(self):
            return None

    datamodule = ready(transform=lambda image: image * torch.rand(()), **AUGMENTED)
    expected = epoch_batches(datamodule)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(accelerator="cpu", precision=precision, max_epochs=1, limit_val_batches=0, **options).fit(
        Module(), datamodule
    )
    dtype = {"32-true": torch.float32, "16-true": torch.float16, "bf16-true": torch.bfloat16}[precision]
    assert all(torch.equal(a, b[0].to(dtype)) for a, b in zip(seen, expected, strict=True))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_global_generators_are_left_alone(num_workers):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    options = AUGMENTED | {"label_noise": 0.1, "subset": 0.5, "transform": lambda image: image * torch.rand(())}
    datamodule = ready("fit", "test", num_workers=num_workers, **options)
    epoch_batches(datamodule)
    for loader in (datamodule.val_dataloader(), datamodule.test_dataloader()):
        for batch in loader:
            datamodule.on_after_batch_transfer(batch, 0)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_set_up_twice_reads_once(monkeypatch):
    datamodule = ready("fit", "test")
    monkeypatch.setattr(Digits, "_read", None)
    for stage in ("fit", "validate", "test", "predict"):
        datamodule.setup(stage)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("eval_batch_size", 0),
        ("num_workers", -1),
        ("val_fraction", 1.0),
        ("val_fraction", -0.1),
        ("split_seed", -1),
        ("imbalance_ratio", 0.01),
        ("imbalance_ratio", float("nan")),
        ("subset", 0),
        ("subset", 1.5),
        ("label_noise", 1.0),
        ("seed", -3),
        ("crop_padding", 8),
        ("crop_mode", "wrap"),
        ("cutout", -1),
        ("transform", 3),
    ],
)
def test_a_bad_argument_is_named_with_its_value(name, value):
    with pytest.raises(InputError, match=rf"{name} must be .* but is {value!r}"):
        Digits(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0.999}, r"val_fraction=0.999 leaves 0 training images of class '0'"),
        (
            {"imbalance_ratio": 200},
            r"imbalance_ratio=200 leaves 0 training images of class '9' \(126 before the split\)",
        ),
        ({"imbalance_ratio": 20, "subset": 9}, r"subset=9 asks for more than 8 training images of class '8'"),
        ({"subset": 500}, r"subset=500 asks for more than \d+ training images of class '0'"),
    ],
)
def test_a_class_without_images_is_named_at_setup(options, message):
    with pytest.raises(InputError, match=message):
        ready(**options)


def test_labels_out_of_range_are_reported(monkeypatch):
    monkeypatch.setattr(Digits, "num_classes", 9)
    with pytest.raises(InputError, match=r"train labels of Digits run from 0 to 9 but must lie in 0\.\.8"):
        ready()


def test_every_class_can_be_chosen_on_the_command_line():
    parser = ArgumentParser()
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("Digits", "MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN", "STL10"):
            parsed = parser.parse_args(["--data", name, "--data.batch_size", "64", "--data.subset", "10"])
            datamodule = parser.instantiate(parsed).data
            assert type(datamodule).__name__ == name
            assert (datamodule.batch_size, datamodule.subset) == (64, 10)
            assert len(datamodule.class_names) == datamodule.num_classes
        parsed = parser.parse_args(["--data", "Digits", "--data.subset", "0.5"])
    assert parser.instantiate(parsed).data.subset == 0.5
