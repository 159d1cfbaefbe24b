"""Groups of an optimizer: no weight decay, layer decay, and options by pattern."""

import pytest
import timm
import torch
from helpers import trainer
from lightning.pytorch.callbacks import LearningRateFinder
from lightning_recipes.datamodules import Digits
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.lr_schedules import CosineSchedule
from lightning_recipes.recipes import Classification
from timm.optim import create_optimizer_v2
from torch.optim import SGD, AdamW

NETWORK = {"patch_size": 2, "embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 8, "in_chans": 1}


def transformer():
    return timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10, **NETWORK)


def options_of(optimizer, network, key):
    """The option of each parameter, by its name in the network."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(p)]: group[key] for group in optimizer.param_groups for p in group["params"]}


def optimizer_of(network, **options):
    make = options.pop("optimizer", lambda parameters: AdamW(parameters, lr=1e-3, weight_decay=0.05))
    return Classification(network, num_classes=10, in_chans=1, optimizer=make, **options).configure_optimizers()


def test_weight_decay_is_that_of_timms_create_optimizer():
    """Which the authors of DeiT and DeiT-LT call: no decay of biases, norms, tokens and position embedding."""
    network = transformer()
    ours = options_of(optimizer_of(network, decay_biases_and_norms=False), network, "weight_decay")
    timms = create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.05)
    assert ours == options_of(timms, network, "weight_decay")
    assert ours["pos_embed"] == ours["cls_token"] == ours["dist_token"] == ours["norm.weight"] == 0
    assert ours["blocks.0.attn.qkv.weight"] == 0.05


def test_a_network_may_name_what_does_not_decay_by_patterns():
    network = transformer()
    network.no_weight_decay = lambda: {"pos_embed", "patch_embed.*"}
    ours = options_of(optimizer_of(network, decay_biases_and_norms=False), network, "weight_decay")
    assert ours == options_of(create_optimizer_v2(network, opt="adamw", weight_decay=0.05), network, "weight_decay")
    assert ours["patch_embed.proj.weight"] == 0


def test_rates_fall_by_the_layer():
    network = transformer()
    rates = options_of(optimizer_of(network, layer_decay=0.5), network, "lr")
    timms = options_of(create_optimizer_v2(network, opt="adamw", lr=1e-3, layer_decay=0.5), network, "lr_scale")
    assert rates == pytest.approx({name: 1e-3 * scale for name, scale in timms.items()})
    assert rates["head.weight"] == 1e-3
    assert rates["blocks.1.mlp.fc1.weight"] == pytest.approx(2 * rates["blocks.0.mlp.fc1.weight"])
    assert rates["blocks.0.mlp.fc1.weight"] == pytest.approx(2 * rates["patch_embed.proj.weight"])


def test_the_last_pattern_wins():
    network = transformer()
    patterns = {"network.head*": {"lr": 0.5}, "*.bias": {"weight_decay": 0.0}, "network.head.*": {"lr": 0.25}}
    optimizer = optimizer_of(network, parameter_options=patterns)
    rates, decay = (options_of(optimizer, network, key) for key in ("lr", "weight_decay"))
    assert (rates["head.weight"], rates["head_dist.weight"], rates["norm.weight"]) == (0.25, 0.5, 1e-3)
    assert (decay["head.bias"], decay["head.weight"]) == (0.0, 0.05)


def test_each_group_keeps_its_rate_under_a_schedule():
    network = transformer()
    model = Classification(
        network,
        num_classes=10,
        in_chans=1,
        optimizer=lambda parameters: SGD(parameters, lr=0.1),
        layer_decay=0.5,
        lr_scheduler=CosineSchedule,
    )
    run = trainer(max_epochs=2, limit_train_batches=1, limit_val_batches=0)
    run.fit(model, Digits(batch_size=16))
    rates = options_of(run.optimizers[0], network, "lr")
    assert rates["blocks.1.norm1.bias"] == pytest.approx(4 * rates["patch_embed.proj.weight"])


def test_schedules_follow_the_rate_of_the_learning_rate_finder():
    torch.manual_seed(0)
    model = Classification(
        timm.create_model("cifar_resnet8", num_classes=10, in_chans=1),
        num_classes=10,
        in_chans=1,
        optimizer=lambda parameters: SGD(parameters, lr=0.1),
        lr_scheduler=CosineSchedule,
    )
    finder = LearningRateFinder(min_lr=0.001, max_lr=0.5, num_training_steps=50)
    run = trainer(max_epochs=2, limit_val_batches=0, callbacks=[finder], enable_checkpointing=True)
    rates = []
    model.on_train_epoch_start = lambda: rates.append(run.optimizers[0].param_groups[0]["lr"])
    run.fit(model, Digits(batch_size=32))
    assert 0.001 < model.learning_rate < 0.5
    assert rates[-2:] == pytest.approx([model.learning_rate, model.learning_rate / 2])


def test_what_the_objective_trains_is_in_the_groups_too():
    network = timm.create_model("cifar_resnet8", num_classes=10, in_chans=1)
    model = Classification(network, num_classes=10, in_chans=1, decay_biases_and_norms=False)
    model.objective.scale = torch.nn.Parameter(torch.ones(3))
    first, *_ = [group for group in model.configure_optimizers().param_groups if group["weight_decay"] == 0]
    assert any(parameter is model.objective.scale for parameter in first["params"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameter_options": {"haed*": {"lr": 1}}}, "no trained parameter has a name like 'haed\\*'; names are like"),
        ({"layer_decay": 1.5}, r"layer_decay must be in \(0, 1\] but is 1.5"),
        ({"layer_decay": 0.5}, "layer_decay 0.5: Sequential does not know its layers"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with pytest.raises(InputError, match=message):
        optimizer_of(network, **options)
