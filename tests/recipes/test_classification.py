import pytest
import torch
from helpers import trainer
from lightning.pytorch import LightningDataModule
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.objectives import CrossEntropy
from lightning_recipes.recipes import Classification
from settings import classification, digits
from torch import nn
from torch.utils.data import DataLoader


class Fixed(LightningDataModule):
    """Somebody else's data: plain tensors, no attributes."""

    def __init__(self, images, labels):
        super().__init__()
        self.pairs = list(zip(images, labels, strict=True))

    def train_dataloader(self):
        return DataLoader(self.pairs, batch_size=4)

    val_dataloader = test_dataloader = train_dataloader


class Logits(nn.Module):
    """Images hold their logits; one weight so that there is something to train."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * images.flatten(1)


def one_hot_images(classes, ranks, num_classes):
    """Images whose logits put the true class on a given rank, 0 being the first."""
    logits = torch.zeros(len(classes), num_classes)
    for row, (label, rank) in enumerate(zip(classes, ranks, strict=True)):
        others = [c for c in range(num_classes) if c != label]
        for place, other in enumerate([*others[:rank], label, *others[rank:]]):
            logits[row, other] = -place
    return logits.view(len(classes), 1, 1, num_classes)


def test_accuracy_counts_the_first_and_from_20_classes_on_the_first_five():
    labels = torch.tensor([3, 7, 19, 0, 5, 6, 7, 8])
    images = one_hot_images(labels.tolist(), [0, 0, 4, 4, 5, 5, 5, 1], 20)
    model = Classification(Logits(), num_classes=20, in_chans=1)
    run = trainer()
    metrics = run.test(model, Fixed(images, labels), verbose=False)[0]
    assert metrics["test/accuracy"] == pytest.approx(2 / 8)
    assert metrics["test/accuracy_top5"] == pytest.approx(5 / 8)
    expected = nn.functional.cross_entropy(images.flatten(1), labels)
    assert metrics["test/loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_ten_classes_have_no_top5():
    metrics = trainer().validate(classification(), digits(), verbose=False)[0]
    assert set(metrics) == {"val/loss", "val/accuracy"}


def test_callbacks_weight_samples_through_the_recipe():
    model = Classification(Logits(), num_classes=2, in_chans=1)
    images = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).view(2, 1, 1, 2)
    labels = torch.tensor([1, 1])
    model.trainer = trainer()
    unweighted = model.training_step((images, labels), 0)
    losses = nn.functional.cross_entropy(images.flatten(1), labels, reduction="none")
    torch.testing.assert_close(model.sample_losses, losses)
    torch.testing.assert_close(unweighted, losses.mean())
    model.sample_weights = torch.tensor([0.0, 2.0])
    torch.testing.assert_close(model.training_step((images, labels), 0), losses[1])


def test_soft_labels_train_and_count_by_their_greatest_class():
    images = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]]).view(4, 1, 1, 2)
    soft = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    run = trainer(max_epochs=1)
    run.fit(Classification(Logits(), num_classes=2, in_chans=1), Fixed(images, soft))
    assert run.callback_metrics["train/accuracy"] == 0.5
    assert run.callback_metrics["val/accuracy"] == 0.5


def test_the_default_schedule_length_follows_the_run():
    model = classification()
    run = trainer(max_epochs=4)
    rates = []
    model.on_train_epoch_start = lambda: rates.append(run.optimizers[0].param_groups[0]["lr"])
    run.fit(model, digits())
    assert rates == pytest.approx([0.1, 0.1 * (1 + 2**-0.5) / 2, 0.05, 0.1 * (1 - 2**-0.5) / 2])


def test_steps_of_the_schedule_are_optimizer_steps():
    model = classification(lr_interval="step")
    trainer(max_epochs=2, accumulate_grad_batches=3).fit(model, digits())
    assert model.lr_schedulers().total == 2
    assert model.lr_schedulers().last_epoch == 2


def test_plateau_schedules_work():
    from lightning.pytorch.cli import ReduceLROnPlateau

    model = classification()
    model.lr_scheduler = lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val/loss", patience=0, factor=0.5)
    trainer(max_epochs=2).fit(model, digits())


def test_a_schedule_without_an_end_is_refused_before_training():
    with pytest.raises(InputError, match=r"lr_scheduler needs to know how long the run is"):
        trainer(max_epochs=-1).fit(classification(), digits())


@pytest.mark.parametrize("options", [{"max_epochs": -1}, {"max_epochs": 100}, {"accumulate_grad_batches": 2}])
def test_a_run_that_max_steps_ends_has_a_schedule_of_its_length(options):
    model = classification()
    trainer(max_steps=6, limit_val_batches=0, **{"max_epochs": 100, **options}).fit(model, digits())
    # Three batches an epoch: 6 steps take 2 epochs, or 3 where two batches make a step and the third one too.
    assert model.lr_schedulers().total == (3 if "accumulate_grad_batches" in options else 2)


@pytest.mark.parametrize("options", [{"log_every_n_steps": 0}, {"barebones": True}])
def test_logging_may_be_off(options):
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "num_sanity_val_steps")
    run = trainer(max_epochs=1, **options, **(dict.fromkeys(off) if "barebones" in options else {}))
    run.fit(classification(), digits())


class WithContext(CrossEntropy):
    """An objective whose context comes from a network that must not be trained through it."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Linear(64, 10)

    def context(self, images, labels):
        return self.teacher(images.flatten(1))

    def forward(self, logits, labels, context=None):
        assert not context.requires_grad
        return super().forward(logits, labels)


def test_the_context_of_an_objective_has_no_gradient():
    trainer(fast_dev_run=True).fit(classification(objective=WithContext()), digits())


def test_convolutional_networks_are_channels_last_and_transformers_are_not():
    assert Classification("cifar_resnet8", num_classes=10).memory_format is torch.channels_last
    vit = Classification("vit_tiny_patch16_224", num_classes=10, image_size=32)
    assert vit.memory_format is torch.preserve_format
    assert Classification("cifar_resnet8", num_classes=10, channels_last=False).memory_format is torch.preserve_format


class HardLabelsOnly(CrossEntropy):
    accepts_soft_labels = False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixup": 0.2, "objective": HardLabelsOnly()}, "mixup=0.2 .* make soft labels, which HardLabelsOnly cannot"),
        ({"network": "cifar_resnet33"}, "no network 'cifar_resnet33'; did you mean"),
        ({"network": Logits(), "network_args": {"depth": 3}}, "network_args .* need network to be a name"),
        ({"num_classes": 1}, "num_classes must be at least 2 but is 1"),
        ({"cutmix": -1}, "cutmix is the parameter of a Beta distribution and must be >= 0, and finite, but is -1"),
    ],
)
def test_what_cannot_work_is_refused_when_the_recipe_is_built(arguments, message):
    with pytest.raises(InputError, match=message):
        Classification(**{"network": "cifar_resnet8", "num_classes": 10, **arguments})


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            torch.zeros(4, 3, 8, 8),
            torch.zeros(4).long(),
            r"shape \(N, 1, H, W\) \(in_chans=1\) but have \(4, 3, 8, 8\)",
        ),
        (torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 10]), r"labels must lie in 0\.\.9 .* a train batch holds 10"),
        (torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, -1]), r"labels must lie in 0\.\.9 .* a train batch holds -1"),
    ],
)
def test_batches_that_do_not_fit_are_named_at_the_first_step(images, labels, message):
    with pytest.raises(InputError, match=message):
        trainer(max_epochs=1, limit_val_batches=0).fit(classification(), Fixed(images, labels))


def test_compiled_training_equals_eager(monkeypatch):
    # "aot_eager" traces forward and backward like the default backend but needs no C++ compiler.
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = classification(compile=compiled)
        original = model.network.compile
        model.network.compile = lambda original=original: original(backend="aot_eager")
        trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1).fit(model, digits())
        results.append({name: value.detach() for name, value in model.network.state_dict().items()})
        assert (model.network._compiled_call_impl is not None) == compiled
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value)


def test_groups_of_classes_have_accuracies_of_their_own():
    model = classification(class_groups={"first": (0, 0), "rest": (1, 9)})
    run = trainer(max_epochs=2)
    run.fit(model, digits())
    logged = run.callback_metrics
    counts = run.datamodule.val_set.labels.bincount()
    share = counts[0] / counts.sum()
    torch.testing.assert_close(
        share * logged["val/accuracy_first"] + (1 - share) * logged["val/accuracy_rest"], logged["val/accuracy"]
    )
    with pytest.raises(InputError, match=r"groups\['a'\] must be a first and a last class"):
        classification(class_groups={"a": (3, 10)})


def test_mixing_ends_with_its_epochs():
    model = classification(mixup=0.8, mix_epochs=1)
    mixed, mix = [], model.mixing
    model.mixing = lambda *args, **kwargs: (mixed.append(model.current_epoch), mix(*args, **kwargs))[1]
    trainer(max_epochs=3).fit(model, digits())
    assert set(mixed) == {0}
