"""Networks are cut where everything behind depends on one tensor alone."""

import pytest
import timm
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.networks import create_network
from lightning_recipes.modules.partition import local_units, partition
from torch import nn


def on_meta(name):
    # timm 1.0.24 reads the widths of a RegNet from tensors.
    with torch.device("cpu" if "regnet" in name else "meta"):
        return create_network(name, num_classes=10)


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("resnet18", 9, "maxpool", "layer4.1"),
        ("vgg11_bn", 8, "features.3", "features.28"),
        ("vit_tiny_patch16_224", 13, "norm_pre", "blocks.11"),
        ("swin_tiny_patch4_window7_224", 13, "layers.0.downsample", "layers.3.blocks.1"),
        ("convnext_atto", 13, "stages.0.downsample", "stages.3.blocks.1"),
        ("efficientnet_b0", 17, "bn1", "blocks.6.0"),
        ("regnety_002", 14, "stem", "s4.b7"),
        ("mobilenetv3_small_100", 13, "bn1", "blocks.5.0"),
        ("cifar_resnet32", 16, "stem", "blocks.14"),
        ("cifar_wrn_16_2", 7, "stem", "blocks.5"),
        ("cifar_vgg8", 5, "blocks.0", "blocks.4"),
    ],
)
def test_units_are_the_stem_and_the_blocks(name, count, first, last):
    units = local_units(on_meta(name))
    assert [len(units), units[0].name, units[-1].name] == [count, first, last]


def test_the_down_sampling_of_a_stage_belongs_to_the_block_behind_it():
    network = on_meta("swin_tiny_patch4_window7_224")
    unit = next(unit for unit in local_units(network) if unit.name == "layers.1.blocks.0")
    assert list(unit) == [network.layers[1].downsample, network.layers[1].blocks[0]]


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_vgg8", "convnet"])
def test_units_and_tail_together_are_the_network(name):
    network = create_network(name, num_classes=10).eval()
    images = torch.randn(2, 3, 32, 32)
    parts = partition(network, images)
    assert torch.equal(nn.Sequential(*parts.units, parts.tail)(images), network(images))


def test_looking_for_units_leaves_the_network_as_it_was():
    network = create_network("cifar_resnet8", num_classes=10).train()
    next(network.parameters()).requires_grad_(False)
    before, state = {n: v.clone() for n, v in network.state_dict().items()}, torch.get_rng_state()
    partition(network)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert network.training
    assert not next(network.parameters()).requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_plain_sequence_is_cut_at_its_layers():
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU()), nn.Flatten(), nn.Linear(16, 10)
    )
    assert [unit.name for unit in local_units(network, torch.zeros(2, 3, 6, 6))] == ["1", "4"]


def test_units_of_the_users_choice():
    network = create_network("cifar_resnet20", num_classes=10)
    assert len(local_units(network, names=[r"blocks\.\d"])) == 9
    units = local_units(network, names=["blocks.2", "blocks.5"])
    assert [len(unit) for unit in units] == [4, 3]
    assert [unit.name for unit in local_units(network, names="blocks.2")] == ["blocks.2"]
    for names, message in [
        (["blocks.("], "neither a name nor a regular expression"),
        (["block.2"], "no layer 'block.2'"),
        (["blocks.2.conv1"], "also uses earlier features"),
        (["blocks.5", "blocks.2"], "does not come after"),
    ]:
        with pytest.raises(InputError, match=message):
            local_units(network, names=names)


class Shared(nn.Module):
    """Blocks beside something that spoils every cut."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(4))
        self.bias = nn.Parameter(torch.zeros(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = first = x.flatten(1)
        shared = self.bias.exp()
        for block in [self.blocks[0]] * 4 if self.kind == "reuse" else self.blocks:
            x = block(x).detach() if self.kind == "detached" else block(x)
            if self.kind == "tied":
                x = x + shared
        return self.head(x + first if self.kind == "skip" else x)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("skip", "earlier features"),
        ("tied", "shares weights"),
        ("reuse", "called 4 times"),
        ("detached", "no gradient of it reaches the images"),
    ],
)
def test_a_network_that_cannot_be_cut_says_why(kind, message):
    with pytest.raises(InputError, match=message):
        local_units(Shared(kind), torch.zeros(2, 2, 2, 2))


def test_dense_connections_are_cut_between_dense_blocks_only():
    with torch.device("meta"):
        names = [unit.name for unit in local_units(timm.create_model("densenet121", num_classes=10))]
    assert "features.denseblock2" in names
    assert not any("denselayer" in name for name in names)


class Guided(nn.Module):
    """Blocks that get a second argument."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x, guide=None, *, scale=1.0):
            return x + self.inner(x) * scale + (0 if guide is None else guide)

    def __init__(self, **extra):
        super().__init__()
        self.extra = extra
        self.blocks = nn.ModuleList(self.Block() for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = x.flatten(1)
        for block in self.blocks:
            x = block(x, **self.extra)
        return self.head(x)


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ({"guide": torch.ones(8)}, "guide"),
        ({"guide": torch.ones(8), "scale": 0.5}, "guide and scale"),
        ({"guide": None, "scale": 1.0}, ""),
        ({}, ""),
    ],
)
def test_a_block_that_gets_more_than_the_features_is_not_complete(extra, names):
    parts = partition(Guided(**extra), torch.zeros(2, 2, 2, 2))
    assert [unit.name for unit in parts.units] == ["blocks.0", "blocks.1", "blocks.2"]
    assert parts.units[1].obstacle == (names and f"blocks.1 takes {names} besides the features")
    assert parts.units[1].complete == (not names)


def test_a_block_whose_first_layer_fits_is_not_complete_for_its_second_tensor():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x, guide):
            return self.inner(x).relu() * guide

    network = Guided(guide=torch.ones(8))
    network.blocks = nn.ModuleList(Scaled() for _ in network.blocks)
    unit = partition(network, torch.zeros(2, 2, 2, 2)).units[1]
    assert unit.obstacle == "blocks.1 takes guide besides the features"


def test_rotary_position_embeddings_are_named_as_the_reason():
    network = timm.create_model("vit_small_patch16_dinov3", num_classes=10, img_size=64)
    unit = partition(network, torch.zeros(2, 3, 64, 64)).units[5]
    assert "takes rope besides the features" in unit.obstacle


def test_layers_without_effect_in_evaluation_belong_to_the_unit_behind_them():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(16, 10), nn.Dropout(0.0),
    )  # fmt: skip
    parts = partition(network, torch.zeros(2, 3, 6, 6))
    assert [unit.layer_names for unit in parts.units] == [("0", "1"), ("2", "3", "4", "5")]
    assert parts.tail.layer_names == ("6", "7", "8")
    assert parts.is_chain
    assert parts.module_layers([0]) == [["0", "1"], ["2", "3", "4", "5", "6", "7", "8"]]


def test_a_computation_of_training_alone_makes_no_chain():
    class Noisy(Guided):
        def forward(self, x):
            x = x.flatten(1)
            for block in self.blocks:
                x = nn.functional.dropout(block(x), 0.5, self.training)
            return self.head(x)

    images = torch.zeros(2, 8)
    assert not partition(Noisy(), images).is_chain
    assert partition(nn.Sequential(*Guided().blocks, nn.Linear(8, 3)), images).is_chain


def test_the_pass_in_training_mode_leaves_statistics_and_random_numbers_alone():
    network = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout()) for _ in range(3)))
    network.append(nn.Flatten())
    assert [unit.layer_names for unit in local_units(network)] == [("0",), ("1",), ("2",)]
    network[1].eval()
    before, state = {n: v.clone() for n, v in network.state_dict().items()}, torch.get_rng_state()
    assert partition(network, torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))).is_chain
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert [network.training, network[1].training, network[2].training] == [True, False, True]
