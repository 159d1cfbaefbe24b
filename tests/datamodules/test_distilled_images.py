"""DistilledImages: sets that were distilled, as the data of any recipe."""

from types import SimpleNamespace

import pytest
import torch
from helpers import trainer
from lightning_recipes.datamodules import DistilledImages
from lightning_recipes.modules.artifacts.synthetic_set import load_set, load_soft_labels, save_set
from lightning_recipes.modules.augmentation.siamese import SiameseAugmentation
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.matching import DistributionMatching
from lightning_recipes.modules.synthetic.joining import choose_classes, join_sets
from lightning_recipes.recipes import Classification
from settings import adversarial, dataset_distillation, digits


@pytest.fixture
def exported(tmp_path):
    net = dataset_distillation(DistributionMatching(), init="real")
    data = digits()
    trainer(max_epochs=1, limit_val_batches=0).fit(net, data)
    return net, net.export_set(tmp_path, data)[0]


def test_distilled_images_reach_the_model_as_they_are_and_validation_is_real(exported):
    net, path = exported
    data = DistilledImages(str(path), digits(), batch_size=20)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    images, labels = data.on_after_batch_transfer(batch, 0)
    order = labels.argsort(stable=True)
    expected = net.images.detach().flatten(0, 1)
    found = [(expected - image).abs().amax((1, 2, 3)).min().item() for image in images]
    assert max(found) < 1e-5
    assert labels[order].tolist() == net.labels.tolist()
    real = digits()
    real.setup("validate")
    assert torch.equal(data.val_set.images, real.val_set.images)
    run = trainer(max_epochs=2)
    run.fit(Classification("convnet", 10, in_chans=1, image_size=8, network_args={"depth": 1, "width": 4}), data)
    assert len(run.test(run.lightning_module, data, verbose=False)) == 1


@pytest.mark.parametrize("batch_size", [1, 7, 12, 19, 256])
def test_an_epoch_reads_all_distilled_images(exported, batch_size):
    data = DistilledImages(str(exported[1]), digits(), batch_size=batch_size)
    data.setup("fit")
    sizes = [len(labels) for _, labels, *_ in data.train_dataloader()]
    # A batch of one image would break batch normalization.
    assert (sum(sizes), sizes[-1]) == {19: (19, 19), 7: (20, 6), 12: (20, 8), 1: (20, 1), 256: (20, 20)}[batch_size]


def test_distilled_images_are_augmented_as_others(exported):
    _, path = exported
    data = DistilledImages(str(path), digits(), batch_size=20, crop_padding=1, transform=lambda image: image + 1)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    augmented, _ = data.on_after_batch_transfer(batch, 0)
    plainly, _ = DistilledImages(str(path), digits()).on_after_batch_transfer(batch, 0)
    assert torch.isfinite(augmented).all()
    assert not torch.equal(augmented, plainly)


def test_recipes_train_with_the_augmentation_that_the_set_was_measured_with(tmp_path):
    augmentation = SiameseAugmentation(["crop", "cutout"], crop=0.25)
    net = dataset_distillation(DistributionMatching(), init="real", augmentation=augmentation)
    trainer(max_epochs=1, limit_val_batches=0).fit(net, digits())
    path = str(net.export_set(tmp_path, digits())[0])
    data = DistilledImages(path, digits(), augmentation="measured")
    assert vars(data.augmentation) == vars(net.augmentation)
    data.setup("fit")
    loader = data.train_dataloader()
    views = []
    for epoch in (0, 0, 1):
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        views.append(data.on_after_batch_transfer(batch, 0)[0])
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    # Each image by one operation with parameters of its own, which hang on its own numbers alone.
    images, randoms = torch.ones(40, 1, 8, 8), torch.rand(40, 4, generator=torch.Generator().manual_seed(0))
    found = data.augmentation.each(images, randoms)
    for image, row, alone in zip(found, randoms, images.split(1), strict=True):
        operation = data.augmentation.operations[int(row[0] * 2)]
        assert torch.equal(image, data.augmentation.apply(alone, operation, row[None, 1:])[0])
    trainer(max_epochs=1).fit(
        Classification("convnet", 10, in_chans=1, image_size=8, network_args={"depth": 1, "width": 4}), data
    )
    with pytest.raises(InputError, match="augmentation takes the place of crop_padding, flip and cutout"):
        DistilledImages(path, digits(), augmentation="measured", flip=True)


@pytest.mark.parametrize("soft", [True, False])
def test_soft_labels_of_a_set_reach_the_recipe(exported, soft):
    images, labels, facts = load_set(exported[1])
    known = {name: facts[name] for name in ("mean", "std", "class_names")}
    probabilities = torch.rand(20, 10, generator=torch.Generator().manual_seed(0)).softmax(1)
    path, _ = save_set(exported[1].parent / "soft", images, labels, soft_labels=probabilities, **known)
    assert torch.equal(load_soft_labels(path), probabilities)
    assert load_soft_labels(exported[1]) is None
    data = DistilledImages(str(path), digits(), soft_labels=soft, subset=1)
    data.setup("fit")
    assert data.class_counts == [1] * 10
    noisy = DistilledImages(str(path), digits(), label_noise=0.5)
    with pytest.raises(InputError, match="set soft_labels to false"):
        noisy.setup("fit")
    (batch,) = data.train_dataloader()
    whole = load_set(path)[0]
    shown = data._normalized(data.train_set[0][0][None])
    index = (whole - shown).abs().amax((1, 2, 3)).argmin()
    label = data.train_set[0][1]
    assert torch.equal(label, probabilities[index]) if soft else label == labels[index]
    assert batch[1].shape == ((10, 10) if soft else (10,))
    trainer(max_epochs=1).fit(
        Classification("convnet", 10, in_chans=1, image_size=8, network_args={"depth": 1, "width": 4}), data
    )


def test_sets_are_joined_and_classes_chosen(exported):
    """A step of continual learning: images of the classes seen so far, from the set of each task."""
    whole = load_set(exported[1])
    files = []
    for task, classes in (("first", ["1", "0", "2"]), ("second", [7, 3])):
        images, labels, facts = choose_classes(whole, classes)
        assert torch.equal(images[:2], whole[0][whole[1] == int(classes[0])])
        folder = exported[1].parent / task
        known = {name: facts[name] for name in ("mean", "std", "class_names")}
        files.append(str(save_set(folder, images, labels, **known)[0]))
    data = DistilledImages(files, digits(), classes=["1", "0", "2", "7", "3"])
    data.setup("fit")
    data.setup("test")
    assert (data.num_classes, data.class_names, data.class_counts) == (5, ("1", "0", "2", "7", "3"), [2] * 5)
    real = digits()
    real.setup("test")
    for label, digit in enumerate((1, 0, 2, 7, 3)):
        assert torch.equal(
            data.test_set.images[data.test_set.labels == label], real.test_set.images[real.test_set.labels == digit]
        )
    of_seven = data._normalized(data.train_set.images[data.train_set.labels == 3])
    assert torch.allclose(of_seven, whole[0][whole[1] == 7], atol=1e-5)
    network = {"in_chans": 1, "image_size": 8, "network_args": {"depth": 1, "width": 4}}
    trainer(max_epochs=1).fit(Classification("convnet", 5, **network), data)
    with pytest.raises(InputError, match=r"num_classes 10 but .* has 5"):
        DistilledImages(files, digits())
    with pytest.raises(InputError, match=r"classes must be some of 1, 0, 2, 7, 3, or indices of them, but hold '9'"):
        DistilledImages(files, digits(), classes=["9"])
    images, labels, facts = join_sets([choose_classes(whole, [0, 1]), choose_classes(whole, [1, 4])])
    assert facts["class_names"] == ["0", "1", "4"]
    assert labels.tolist() == [0] * 2 + [1] * 4 + [2] * 2


def test_an_adversarial_recipe_trains_on_the_pixels_that_are_in_range(exported):
    _, path = exported
    images, labels, facts = load_set(path)
    names = {"mean": facts["mean"], "std": facts["std"], "class_names": facts["class_names"]}
    path, _ = save_set(path.parent / "far", images * 5, labels, **names)
    with pytest.raises(InputError, match=r"must be the range of the pixels.*--data.clip true of DistilledImages"):
        trainer(max_epochs=1, limit_val_batches=0).fit(adversarial(), DistilledImages(str(path), digits()))
    data = DistilledImages(str(path), digits(), clip=True)
    trainer(max_epochs=1, limit_val_batches=0).fit(adversarial(), data)
    assert data.train_set.images.amin() == 0
    assert data.train_set.images.amax() == 1


def test_a_set_needs_the_data_of_its_origin(exported, tmp_path):
    with pytest.raises(InputError, match="real has in_chans 3 but"):
        DistilledImages(str(exported[1]), SimpleNamespace(num_classes=10, in_chans=3, image_size=8))
    # The order of the classes is that of the labels.
    real = digits()
    real.class_names = real.class_names[::-1]
    assert DistilledImages(str(exported[1]), real).class_names == digits().class_names  # numbers are no names
    images, labels, facts = load_set(exported[1])
    names = {"mean": facts["mean"], "std": facts["std"], "class_names": list("abcdefghij")}
    named, _ = save_set(tmp_path / "named", images, labels, **names)
    real.class_names = tuple("abcdefghji")
    with pytest.raises(InputError, match=r"real has class 'j' where .* has 'i'"):
        DistilledImages(str(named), real)
