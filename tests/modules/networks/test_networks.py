import pytest
import timm
import torch
from lightning_recipes.modules.errors import InputError
from lightning_recipes.modules.networks import create_network

# Parameters of the published networks. CIFAR ResNets of local learning and ConvNets of dataset distillation: the
# reference implementations; the rest follow from the architectures.
PARAMETERS = [
    ("cifar_resnet32", 10, {}, 466_906),
    ("cifar_resnet110", 10, {}, 1_730_714),
    ("cifar_resnet20", 100, {}, 278_324),
    ("cifar_resnet8x4", 100, {}, 1_233_540),
    ("cifar_resnet32x4", 100, {}, 7_433_860),
    ("cifar_wrn_16_1", 100, {}, 180_916),
    ("cifar_wrn_16_2", 100, {}, 703_284),
    ("cifar_wrn_40_1", 100, {}, 569_780),
    ("cifar_wrn_40_2", 100, {}, 2_255_156),
    ("cifar_wrn_28_10", 10, {}, 36_479_194),
    ("cifar_vgg8", 100, {}, 3_965_028),
    ("cifar_vgg13", 100, {}, 9_462_180),
    ("cifar_resnet18", 10, {}, 11_173_962),
    ("cifar_resnet34", 10, {}, 21_282_122),
    ("cifar_resnet50", 10, {}, 23_520_842),
    ("convnet", 10, {}, 320_010),
    ("convnet", 100, {}, 504_420),
    ("convnet", 200, {"depth": 4, "image_size": 64}, 857_160),
    ("convnet", 10, {"depth": 6, "image_size": 128, "norm": "batch"}, 748_170),
    ("convnet", 10, {"depth": 5, "image_size": 128, "norm": "batch"}, 615_690),
]
# One of each family, small enough to run.
FAMILIES = ["cifar_resnet8", "cifar_resnet8x4", "cifar_wrn_16_1", "cifar_vgg8", "cifar_resnet18", "convnet"]


@pytest.mark.parametrize(("name", "num_classes", "args", "expected"), PARAMETERS)
def test_parameter_counts_are_the_published_ones(name, num_classes, args, expected):
    with torch.device("meta"):
        network = create_network(name, num_classes=num_classes, network_args=args)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize("name", ["cifar_resnet14", "cifar_resnet44", "cifar_resnet56", "convnet"])
def test_names_are_timms(name):
    assert name in timm.list_models()
    assert timm.create_model(name, num_classes=7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("name", FAMILIES)
def test_interface_of_timm(name):
    network = create_network(name, num_classes=5, in_chans=1, image_size=16).eval()
    images = torch.randn(2, 1, 16, 16)
    features = network.forward_features(images)
    assert features.shape[0] == 2
    assert features.ndim == 4
    assert torch.equal(network.forward_head(features), network(images))
    assert network.forward_head(features, pre_logits=True).shape == (2, network.num_features)
    assert network.get_classifier().out_features == network.num_classes == 5
    network.reset_classifier(3)
    assert network(images).shape == (2, 3)
    network.reset_classifier(0)
    assert network(images).shape == (2, network.num_features)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gradient_reaches_every_parameter(name):
    torch.manual_seed(0)
    network = create_network(name, num_classes=10, image_size=16)
    network(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_channels_last_changes_nothing_but_the_layout(name):
    torch.manual_seed(0)
    network = create_network(name, num_classes=10, image_size=16).eval()
    images = torch.randn(2, 3, 16, 16)
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group", "none"])
def test_convnet_norms(norm):
    network = create_network("convnet", num_classes=4, network_args={"norm": norm, "width": 8}, image_size=16)
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 4)


def test_convnet_pads_grey_images_of_28_pixels_to_32():
    network = create_network("convnet", num_classes=10, in_chans=1, network_args={"width": 8}, image_size=28)
    assert network.num_features == 8 * 4 * 4
    assert network(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_convnet_instance_norm_is_independent_of_the_rest_of_the_batch():
    network = create_network("convnet", num_classes=10, network_args={"width": 8}).train()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images)[:1], network(images[:1]))


def test_the_image_size_reaches_networks_that_depend_on_it_and_no_others():
    assert create_network("vit_tiny_patch16_224", num_classes=3, image_size=32)(torch.zeros(1, 3, 32, 32)).shape == (
        1,
        3,
    )
    assert create_network("resnet10t", num_classes=3, image_size=32)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    given = {"image_size": 16, "width": 8}
    assert create_network("convnet", num_classes=3, network_args=given, image_size=32).num_features == 8 * 2 * 2


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("cifar_resnet33", {}, r"no network 'cifar_resnet33'; did you mean .*cifar_resnet32"),
        ("qqqqqq", {}, r"no network 'qqqqqq'; timm.list_models"),
        ("convnet", {"wdith": 3}, r"convnet has no argument 'wdith'"),
        ("resnet10t", {"wdith": 3}, r"resnet10t has no argument 'wdith'"),
        ("convnet", {"depth": 6}, r"depth 6 leaves nothing of an image of image_size 32: it can be 5 at most"),
        ("convnet", {"norm": "btach"}, r"norm must be instance, batch, layer, group or none but is 'btach'"),
        ("cifar_resnet20", {"pretrained": True}, r"pretrained=True: there are no weights for cifar_resnet20"),
    ],
)
def test_errors_name_the_thing_and_the_way_out(name, args, message):
    with pytest.raises(InputError, match=message):
        create_network(name, num_classes=10, network_args=args)
