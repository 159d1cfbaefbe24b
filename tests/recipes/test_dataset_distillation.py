"""What a run of dataset distillation does beyond what the suites ask of every recipe."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from helpers import trainer
from lightning import LightningDataModule
from lightning.pytorch import Callback
from lightning_recipes import configs
from lightning_recipes.callbacks import AWP, AutoAttack
from lightning_recipes.datamodules import Digits
from lightning_recipes.modules.artifacts.synthetic_set import load_set, save_set
from lightning_recipes.modules.augmentation.siamese import SiameseAugmentation
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.matching import DataDAM, DistributionMatching, GradientMatching
from lightning_recipes.modules.synthetic.training import SmallSetTraining
from lightning_recipes.recipes import DatasetDistillation
from lightning_recipes.recipes.cli import main
from settings import dataset_distillation, digits
from torch.utils.data import DataLoader, TensorDataset


def model(**arguments):
    return dataset_distillation(DistributionMatching(), **{"init": "real", **arguments})


def plain(data):
    """All training images of a datamodule, normalised, and their labels."""
    data.setup("fit")
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.plain_train_dataloader()]
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


@pytest.mark.parametrize("init", ["real", "kcenter", "noise"])
def test_images_start_from_real_ones_of_their_class_or_from_noise(init):
    net = model(init=init, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    trainer(max_epochs=1, limit_val_batches=0).fit(net, digits())
    images, labels = plain(digits())
    for label in range(10):
        of_class = images[labels == label].flatten(1)
        for image in net.images[label].flatten(1):
            assert (of_class == image).all(1).any() == (init != "noise")
    # Two images of a class are two different ones.
    assert not torch.equal(net.images[:, 0], net.images[:, 1])


FROZEN = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0)}


@pytest.mark.parametrize("ready", [False, True])
def test_images_that_were_set_stay_and_the_baselines_are_real(ready):
    net = model(**FROZEN)
    mine = torch.randn(net.images.shape, generator=torch.Generator().manual_seed(1))
    net.images.data.copy_(mine)
    net.ready.fill_(ready)
    untrained = trainer().test(net, digits(), verbose=False)[0]  # has no baselines yet
    assert "test/accuracy" in untrained
    assert "test/accuracy_random" not in untrained
    trainer(max_epochs=1, limit_val_batches=0).fit(net, digits())
    assert torch.equal(net.images, mine)
    reference = model(**FROZEN)
    trainer(max_epochs=1, limit_val_batches=0).fit(reference, digits())
    assert torch.equal(net.random_images, reference.random_images)
    assert torch.equal(net.kcenter_images, reference.kcenter_images)


def test_images_of_another_shape_are_refused():
    net = model()
    net.images.data = torch.ones(10, 3, 1, 8, 8)
    with pytest.raises(InputError, match="images must keep the shape"):
        trainer(max_epochs=1).fit(net, digits())


@pytest.mark.parametrize("given", [1, 3])
def test_images_start_from_a_file_whatever_its_number_and_statistics(given, tmp_path):
    data = digits()
    images = torch.randn(10 * given, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(10).repeat_interleave(given)
    names = {"class_names": data.class_names}
    same, _ = save_set(tmp_path / "same", images, labels, mean=data.mean, std=data.std, **names)
    other, _ = save_set(tmp_path / "other", images, labels, mean=[0.0], std=[1.0], **names)
    wanted = images.view(10, given, 1, 8, 8)[:, :2]
    for path, expected in ((same, wanted), (other, (wanted - data.mean[0]) / data.std[0])):
        net = model(init=str(path), **FROZEN)
        trainer(max_epochs=1, limit_val_batches=0).fit(net, digits())
        assert torch.allclose(net.images[:, :given], expected, atol=1e-5)
    if given == 1:  # a random real image fills up
        reference = model(**FROZEN)
        trainer(max_epochs=1, limit_val_batches=0).fit(reference, digits())
        assert torch.equal(net.images[:, 1], reference.images[:, 1])
    turned, _ = save_set(tmp_path / "turned", images, labels, mean=[0.0], std=[1.0], class_names=data.class_names[::-1])
    with pytest.raises(InputError, match="has class '9' where the data has '0'"):
        trainer(max_epochs=1).fit(model(init=str(turned)), digits())
    net = model(init=str(same), in_chans=3)
    colour = DataLoader(TensorDataset(torch.ones(40, 3, 8, 8), torch.arange(40) % 10), 8)
    with pytest.raises(InputError, match="has 10 classes of images"):
        trainer(max_epochs=1).fit(net, colour)


def test_real_batches_hold_each_class_without_augmentation_and_are_new_each_step():
    net, seen = model(), []
    step = net.training_step
    net.training_step = lambda batch, batch_idx: [seen.append(batch), step(batch, batch_idx)][1]
    trainer(max_epochs=2, limit_val_batches=0).fit(net, digits())
    images, _ = plain(digits())
    known = {tuple(image.flatten().tolist()) for image in images}
    assert len(seen) == 6
    for batch, labels in seen:
        assert labels.tolist() == [label for label in range(10) for _ in range(8)]
        assert {tuple(image.flatten().tolist()) for image in batch} <= known
    assert len({tuple(batch.flatten().tolist()) for batch, _ in seen}) == 6


def test_classes_with_few_images_give_all_they_have():
    net = model(batch_real=30)
    run = trainer(max_epochs=1, limit_val_batches=0)
    run.fit(net, digits(subset=None, imbalance_ratio=20))
    counts = net._batches.counts
    assert counts[0] == 30
    assert counts[9] < 10
    assert torch.isfinite(run.callback_metrics["train/loss"])


class Foreign(LightningDataModule):
    """A stranger's datamodule, which normalises in its data set."""

    def train_dataloader(self):
        images, labels = plain(digits())
        return DataLoader(TensorDataset(images, labels), 16, shuffle=True)


@pytest.mark.parametrize("as_loader", [False, True])
def test_any_loader_will_do_and_global_generators_stay(as_loader):
    torch.manual_seed(3)
    net, state = model(), torch.get_rng_state()
    data = Foreign().train_dataloader() if as_loader else Foreign()
    trainer(max_epochs=1).fit(net, data)
    assert torch.equal(state, torch.get_rng_state())
    assert net.ready


def test_the_matching_network_is_no_part_of_the_module_and_new_each_step():
    net, seen = model(), []
    terms = net.matching.terms
    net.matching.terms = lambda network, *rest: [
        seen.append(next(network.parameters()).clone()),
        terms(network, *rest),
    ][1]
    trainer(max_epochs=1, limit_val_batches=0).fit(net, digits())
    assert [name for name, _ in net.named_parameters()] == ["images"]
    assert set(net.state_dict()) == {"images", "random_images", "kcenter_images", "ready"}
    assert len({tuple(weights.flatten().tolist()) for weights in seen}) == 3


def test_a_network_of_gradient_matching_serves_its_steps_and_is_trained_between():
    net, calls = dataset_distillation(GradientMatching(2, 3)), []
    net.matching.train_network = lambda *arguments, **keywords: calls.append(net._step)
    trainer(max_epochs=2, limit_val_batches=0).fit(net, digits())
    assert calls == [1, 3, 5]


@pytest.mark.parametrize("technique", ["dc", "dsa"])
@pytest.mark.parametrize("images_per_class", [1, 10, 50])
def test_gradient_matching_trains_the_published_number_of_networks(technique, images_per_class):
    """1,000 networks of 1, 10 and 50 steps (https://arxiv.org/abs/2006.05929)."""
    config = yaml.safe_load(Path(configs.__path__[0], "cifar10", f"{technique}.yaml").read_text())
    arguments = config["model"]["init_args"]
    net = dataset_distillation(
        GradientMatching(),
        images_per_class=images_per_class,
        steps_per_epoch=None,
        networks_per_epoch=arguments["networks_per_epoch"],
    )
    assert "steps_per_epoch" not in arguments
    assert config["trainer"]["max_epochs"] * net.steps_per_epoch == 1000 * images_per_class
    assert config["data"]["init_args"]["val_fraction"] == config["trainer"]["limit_val_batches"] == 0


def test_distilled_digits_beat_random_ones():
    """One image of each class: the sheet of published and measured facts asks for ten points."""
    net = model(
        network_args={"depth": 2, "width": 16},
        images_per_class=1,
        batch_real=32,
        steps_per_epoch=60,
        training=SmallSetTraining(100, together=True),
        test_networks=2,
    )
    data = Digits()
    run = trainer(max_epochs=1, limit_val_batches=0)
    run.fit(net, data)
    metrics = run.test(net, data, verbose=False)[0]
    assert metrics["test/accuracy"] > metrics["test/accuracy_random"] + 0.1
    names = ["accuracy", "accuracy_random", "accuracy_kcenter", "accuracy_png"]
    for name in names:
        singles = [metrics[f"test/{name}_{index}"] for index in range(2)]
        assert metrics[f"test/{name}"] == pytest.approx(sum(singles) / 2)
        assert metrics[f"test/{name}_std"] == pytest.approx(abs(singles[0] - singles[1]) / 2, abs=1e-6)


@pytest.mark.parametrize("baselines", [["random", "kcenter", "png"], ["png"], ["whole"], []])
def test_only_the_baselines_that_were_asked_for_are_trained(baselines):
    trained, sets = [], []

    class Counted(SmallSetTraining):
        def __call__(self, networks, images, labels, **keywords):
            trained.extend(networks)
            sets.append((images, labels))
            super().__call__(networks, images, labels, **keywords)

    net = model(baselines=baselines, training=Counted(1), test_networks=2)
    run = trainer(max_epochs=1, limit_val_batches=0)
    run.fit(net, digits())
    values = run.test(net, digits(), verbose=False)[0]
    assert len(trained) == 2 * (1 + len(baselines))
    found = {name for name in ("random", "kcenter", "png", "whole") if f"test/accuracy_{name}" in values}
    assert found == set(baselines)
    if baselines == ["whole"]:
        assert all(map(torch.equal, sets[1], plain(digits())))
        with pytest.raises(InputError, match="whole needs a datamodule"):
            trainer().test(net, DataLoader(TensorDataset(torch.ones(8, 1, 8, 8), torch.arange(8))), verbose=False)


def test_autoattack_says_that_there_is_no_classifier():
    with pytest.raises(InputError, match="attacks the logits of forward, which DatasetDistillation does not have"):
        trainer(callbacks=[AutoAttack()]).test(model(), digits(), verbose=False)


def test_another_architecture_can_measure_the_set():
    net = model(evaluation_network="cifar_resnet8")
    run = trainer(max_epochs=1)
    run.fit(net, digits())
    assert torch.isfinite(run.callback_metrics["val/loss"])


@pytest.mark.parametrize(("init", "expected"), [("torch", 40), ("network", 88)])
def test_another_architecture_starts_as_in_the_authors_code(init, expected):
    """Length of all convolutions of ResNet-18: PyTorch's default is 40, He's is 88."""
    net = model(evaluation_network="cifar_resnet18", evaluation_init=init, image_size=16)
    states = [net._evaluation_network(seed=seed).state_dict() for seed in (1, 1, 2)]
    weights = [torch.cat([w.flatten() for w in state.values() if w.ndim == 4]) for state in states]
    assert weights[0].norm() == pytest.approx(expected, rel=0.03)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_loaded_run_goes_on_with_the_matching_and_augmentation_it_was_made_with(tmp_path):
    arguments = {"augmentation": SiameseAugmentation(["crop"], crop=0.25), "training": SmallSetTraining(5)}
    net = dataset_distillation(GradientMatching(2, 3), **arguments)
    run = trainer(max_epochs=1, limit_val_batches=0)
    run.fit(net, digits())
    run.save_checkpoint(tmp_path / "run.ckpt")
    loaded = DatasetDistillation.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    for name in ("matching", "augmentation", "training_of_networks"):
        made, found = getattr(net, name), getattr(loaded, name)
        assert type(made) is type(found)
        assert vars(made) == vars(found)
    other = DatasetDistillation.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True, augmentation=None)
    assert other.augmentation is None
    images = []
    for each in (net, loaded):
        trainer(max_epochs=2, limit_val_batches=0).fit(each, digits(), ckpt_path=tmp_path / "run.ckpt")
        images.append(each.images.detach().clone())
    assert torch.equal(*images)


class OwnMatching(DistributionMatching):
    """A stranger's loss, which a checkpoint names but cannot build."""


def test_a_checkpoint_names_a_part_that_it_cannot_build(tmp_path):
    run = trainer(max_epochs=1, limit_val_batches=0)
    run.fit(dataset_distillation(OwnMatching()), digits())
    run.save_checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(InputError, match=r"made with matching \S*OwnMatching.*give matching=…"):
        DatasetDistillation.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    loaded = DatasetDistillation.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True, matching=OwnMatching())
    assert isinstance(loaded.matching, OwnMatching)


def test_pictures_are_written_where_they_are_due(tmp_path):
    run = trainer(max_epochs=4, limit_val_batches=0, default_root_dir=tmp_path)
    run.fit(model(grid_every=2), digits())
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["epoch_0002.png", "epoch_0004.png"]


def test_a_set_goes_from_the_command_line_through_its_file_into_any_recipe(tmp_path, capsys):
    small = ["--model.training.epochs", "3", "--model.steps_per_epoch", "3", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "-c", "digits/datadam", "--run_dir", "run", *small]) == 0
    recipe = ["-c", "run/recipe.yaml", "--ckpt_path", "run/checkpoints/last.ckpt"]
    assert main(["test", *recipe, "--run_dir", "test"]) == 0
    with open("test/metrics.json") as file:
        assert {"test/accuracy", "test/accuracy_random", "test/accuracy_kcenter"} <= set(json.load(file))
    assert main(["export", *recipe, "--run_dir", "export"]) == 0
    images, labels, facts = load_set("export/distilled.safetensors")
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert torch.equal(images, checkpoint["state_dict"]["images"].flatten(0, 1))
    assert labels.tolist() == list(range(10))
    assert (facts["method"], facts["settings"]["power"], facts["steps"]) == ("DataDAM", 4.0, 12)
    # The example of the documentation: a student of ATS, and AugLocal, on the exported set.
    teacher = ["--model.network_args.width", "64", "--run_dir", "runs/teachers/digits/convnet"]
    assert main(["fit", "-c", "digits/supervised", *teacher, "--trainer.max_epochs", "1"]) == 0
    on_set = ["--data", "DistilledImages", "--data.path", "export/distilled.safetensors", "--data.real", "Digits"]
    for technique in ("ats", "auglocal"):
        run = ["--trainer.max_epochs", "2", "--run_dir", technique]
        assert main(["fit", "-c", f"digits/{technique}", *on_set, *run]) == 0
        with open(f"{technique}/summary.json") as file:
            assert json.load(file)["samples"] == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images_per_class": 0}, "images_per_class must be at least 1 but is 0"),
        ({"batch_real": 0}, "batch_real must be at least 1"),
        ({"baselines": ["herding"]}, "baselines must be a list of some of random, kcenter, png, whole but is"),
        ({"init": "ones"}, "init must be real, noise or kcenter but is 'ones'"),
        ({"network": "convnot"}, "did you mean convnet"),
        ({"network": torch.nn.Linear(1, 1)}, "network must be a name of timm's, .* but is a Linear"),
        ({"evaluation_network": "convnot"}, "did you mean convnet"),
        ({"matching": DataDAM(layers=["pool"])}, r"layers must give features \(N, C, H, W\)"),
        ({"matching": GradientMatching(), "images_per_class": 3}, "images_per_class 3 has no published loops"),
    ],
)
def test_errors_come_when_the_recipe_is_built(arguments, message):
    with pytest.raises(InputError, match=message):
        dataset_distillation(**{"matching": DistributionMatching(), **arguments})


def test_errors_come_before_training():
    with pytest.raises(InputError, match="class 0 has only 10"):
        trainer(max_epochs=1).fit(model(images_per_class=11), digits())
    with pytest.raises(InputError, match="give it a datamodule or a loader"):
        trainer(max_epochs=1).fit(model())
    with pytest.raises(InputError, match="no distilled images yet"):
        trainer().validate(model(), digits(), verbose=False)
    with pytest.raises(InputError, match="no network to predict with"):
        trainer().predict(model(), digits())
    pixels = TensorDataset(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 10)
    with pytest.raises(InputError, match="uint8 and no datamodule makes them floating"):
        trainer(max_epochs=1).fit(model(), DataLoader(pixels, 10))
    with pytest.raises(InputError, match="class indices"):
        trainer(max_epochs=1).fit(model(), DataLoader(torch.zeros(20, 1, 8, 8), 10))


def test_a_step_is_computed_once():
    """Another call would count a step: the network would be trained and renewed too early."""
    with pytest.raises(InputError, match="AWP computes the loss of a step twice, which DatasetDistillation cannot"):
        trainer(max_epochs=1, callbacks=[AWP(gamma=0.0)]).fit(model(), digits())
    again = Callback()
    again.on_train_batch_start = lambda run, net, batch, batch_idx: net.training_step(batch, batch_idx) and None
    with pytest.raises(InputError, match="step of DatasetDistillation was computed twice"):
        trainer(max_epochs=1, callbacks=[again]).fit(model(), digits())
    with pytest.raises(InputError, match="step of DatasetDistillation was computed twice"):
        trainer(max_epochs=1).fit(model(optimizer=torch.optim.LBFGS), digits())


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_images_are_made_in_full_precision(precision):
    with pytest.raises(InputError, match=f"precision {precision} does not suit images"):
        trainer(max_epochs=1, precision=precision).fit(model(), digits())


def test_batch_normalisation_refuses_to_share_classes():
    net = model(network_args={"depth": 2, "width": 8, "norm": "batch"})
    net._trainer = SimpleNamespace(global_rank=0, world_size=2, precision="32-true")
    with pytest.raises(InputError, match="norm instance, or one process"):
        net.setup("fit")


def test_training_the_measuring_networks_augments_each_image_by_itself():
    net = model(augmentation=SiameseAugmentation(["crop"]))
    images = torch.arange(64.0).view(1, 1, 8, 8).repeat(10, 1, 1, 1)
    out = net._augment_each(images, (1, 2))
    assert len({tuple(image.flatten().tolist()) for image in out}) > 1
