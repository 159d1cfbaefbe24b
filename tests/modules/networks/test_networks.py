import pytest
import timm
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.feature_capture import FeatureCapture
from lightning_recipes.modules.networks import create_network

# Parameters of the published networks. CIFAR ResNets of local learning and ConvNets of dataset distillation: the
# reference implementations; the rest follow from the architectures.
PARAMETERS = [
    ("cifar_resnet32", 10, {}, 466_906),
    ("cifar_resnet110", 10, {}, 1_730_714),
    ("cifar_resnet8", 10, {}, 78_042),
    ("cifar_resnet14", 10, {}, 175_258),
    ("cifar_resnet44", 10, {}, 661_338),
    ("cifar_resnet20", 100, {}, 278_324),
    ("cifar_resnet56", 100, {}, 861_620),
    ("cifar_resnet8x4", 100, {}, 1_233_540),
    ("cifar_resnet32x4", 100, {}, 7_433_860),
    ("cifar_wrn_16_1", 100, {}, 180_916),
    ("cifar_wrn_16_2", 100, {}, 703_284),
    ("cifar_wrn_40_1", 100, {}, 569_780),
    ("cifar_wrn_40_2", 100, {}, 2_255_156),
    ("cifar_wrn_28_10", 10, {}, 36_479_194),
    ("cifar_wrn_34_10", 10, {}, 46_160_474),
    ("cifar_vgg8", 100, {}, 3_965_028),
    ("cifar_vgg13", 100, {}, 9_462_180),
    # The students of RepDistiller, counted in its own code.
    ("cifar_mobilenetv2", 100, {}, 812_836),
    ("cifar_shufflenetv1", 100, {}, 949_258),
    ("cifar_shufflenetv2", 100, {}, 1_355_528),
    ("cifar_resnet18", 10, {}, 11_173_962),
    ("cifar_resnet34", 10, {}, 21_282_122),
    ("cifar_resnet50", 10, {}, 23_520_842),
    ("cifar_resnet18", 10, {"norm": "instance"}, 11_173_962),
    # 9,728 + 614,592 + 442,624 + 442,560 + 331,968 + 30,730
    ("cifar_alexnet", 10, {}, 1_872_202),
    # convolutions 9,220,480, norms 5,504, linear layer 5,130
    ("cifar_vgg11", 10, {}, 9_231_114),
    ("cifar_vgg11", 10, {"norm": "batch"}, 9_231_114),
    ("convnet", 10, {}, 320_010),
    ("convnet", 100, {}, 504_420),
    ("convnet", 200, {"depth": 4, "image_size": 64}, 857_160),
    ("convnet", 10, {"depth": 6, "image_size": 128, "norm": "batch"}, 748_170),
    ("convnet", 10, {"depth": 5, "image_size": 128, "norm": "batch"}, 615_690),
]
# One of each family, small enough to run.
FAMILIES = [
    "cifar_resnet8",
    "cifar_resnet8x4",
    "cifar_wrn_16_1",
    "cifar_vgg8",
    "cifar_resnet18",
    "convnet",
    "cifar_alexnet",
    "cifar_vgg11",
    "cifar_mobilenetv2",
    "cifar_shufflenetv1",
    "cifar_shufflenetv2",
]


@pytest.mark.parametrize(("name", "num_classes", "args", "expected"), PARAMETERS)
def test_parameter_counts_are_the_published_ones(name, num_classes, args, expected):
    with torch.device("meta"):
        network = create_network(name, num_classes=num_classes, network_args=args)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


NAMES = [
    *(f"cifar_resnet{depth}" for depth in ("8", "14", "20", "32", "44", "56", "110", "8x4", "32x4", "18", "34", "50")),
    *(f"cifar_wrn_{sizes}" for sizes in ("16_1", "16_2", "40_1", "40_2", "28_10")),
    *("cifar_vgg8", "cifar_vgg13", "convnet", "cifar_alexnet", "cifar_vgg11"),
    *("cifar_mobilenetv2", "cifar_shufflenetv1", "cifar_shufflenetv2"),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_timms(name):
    assert name in timm.list_models()
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=7, in_chans=1)
        assert network(torch.empty(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("size", "in_chans"), [(28, 1), (32, 4), (48, 3)])
def test_sizes_and_channels(name, size, in_chans):
    network = create_network(name, num_classes=5, in_chans=in_chans, image_size=size)
    assert network(torch.randn(2, in_chans, size, size)).shape == (2, 5)


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
    headless = create_network(name, num_classes=0, in_chans=1, image_size=16)
    assert headless(images).shape == (2, network.num_features)


def test_a_new_classifier_stays_where_the_network_is():
    network = create_network("cifar_resnet8", num_classes=5).to("meta", torch.bfloat16)
    network.reset_classifier(3)
    assert {(p.device.type, p.dtype) for p in network.parameters()} == {("meta", torch.bfloat16)}


@pytest.mark.parametrize(
    "name",
    ["cifar_resnet8", "cifar_wrn_16_1", "cifar_vgg8", "convnet", "cifar_mobilenetv2", "cifar_shufflenetv1"],
)
def test_a_network_is_a_chain_that_can_be_cut_anywhere(name):
    network = create_network(name, num_classes=5, image_size=16).eval()
    images = torch.randn(2, 3, 16, 16)
    x = network.stem(images)
    for block in network.blocks:
        x = block(x)
    assert torch.equal(network.forward_head(network.norm(x)), network(images))


def test_features_of_pre_activated_blocks_are_activated():
    network = create_network("cifar_wrn_16_1", num_classes=5).eval()
    assert (network.forward_features(torch.randn(2, 3, 16, 16)) >= 0).all()


@pytest.mark.parametrize(
    ("name", "blocks", "shapes"),
    [
        ("cifar_mobilenetv2", (2, 5, 12, 16), [(12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)]),
        ("cifar_shufflenetv1", (3, 11, 15), [(240, 16, 16), (480, 8, 8), (960, 4, 4)]),
        ("cifar_shufflenetv2", (3, 11, 15), [(116, 16, 16), (232, 8, 8), (464, 4, 4)]),
    ],
)
def test_stages_of_the_small_students_are_found_by_name(name, blocks, shapes):
    """The feature maps that RepDistiller hands to its losses, by the names that ours have."""
    network = create_network(name, num_classes=100).eval()
    capture = FeatureCapture(network, [*(f"blocks.{index}" for index in blocks), "pool"])
    capture.start()
    network(torch.randn(2, 3, 32, 32))
    *maps, pooled = capture.take()
    assert [tuple(value.shape[1:]) for value in maps] == shapes
    assert pooled.shape == (2, network.num_features)


@pytest.mark.parametrize("name", FAMILIES)
def test_torch_export_with_any_batch_size(name):
    network = create_network(name, num_classes=5, image_size=16).eval()
    batch = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(network, (torch.randn(2, 3, 16, 16),), dynamic_shapes=batch)
    images = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(exported.module()(images), network(images))


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_move_to_a_second_network(name):
    first, second = (create_network(name, num_classes=5, image_size=16) for _ in range(2))
    images = torch.randn(4, 3, 16, 16)
    first(images)  # moves the running statistics
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(images), second.eval()(images))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gradient_reaches_every_parameter(name):
    torch.manual_seed(0)
    network = create_network(name, num_classes=10, image_size=16)
    network(torch.randn(4, 3, 16, 16)).square().sum().backward()
    # A bias that a normalisation takes out again has a gradient of zero, but it has one.
    dead = {key for key, p in network.named_parameters() if p.grad is None or (p.ndim > 1 and not p.grad.any())}
    assert dead == set()


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


@pytest.mark.parametrize(
    ("name", "args", "size"),
    [
        ("cifar_alexnet", {}, 8),
        ("cifar_vgg11", {}, 8),
        ("cifar_vgg11", {}, 2),
        ("cifar_resnet18", {"norm": "instance"}, 9),
    ],
)
def test_what_a_small_image_shows_reaches_the_logits(name, args, size):
    """Instance norms would wipe out maps of a single pixel."""
    torch.manual_seed(0)
    network = create_network(name, num_classes=10, in_chans=1, network_args=args, image_size=size)
    one, other = network(torch.randn(2, 1, size, size))
    assert (one - other).abs().max() > 1e-3


def test_networks_of_cross_architecture_evaluation_pad_grey_images_of_28_pixels_to_32():
    for name, size in (("cifar_alexnet", 4), ("cifar_vgg11", 1)):
        network = create_network(name, num_classes=10, in_chans=1, image_size=28)
        assert network.forward_features(torch.zeros(1, 1, 28, 28)).shape[2:] == (size, size)
        assert network(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_the_image_size_reaches_networks_that_depend_on_it_and_no_others():
    assert create_network("vit_tiny_patch16_224", num_classes=3, image_size=32)(torch.zeros(1, 3, 32, 32)).shape == (
        1,
        3,
    )
    assert create_network("resnet10t", num_classes=3, image_size=32)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    given = {"image_size": 16, "width": 8}
    assert create_network("convnet", num_classes=3, network_args=given, image_size=32).num_features == 8 * 2 * 2


def test_a_tag_of_timm_passes_through():
    network = create_network("resnet18.a1_in1k", num_classes=5)
    assert network.pretrained_cfg["tag"] == "a1_in1k"


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("cifar_resnet33", {}, r"no network 'cifar_resnet33'; did you mean .*cifar_resnet32"),
        ("qqqqqq", {}, r"no network 'qqqqqq'; timm.list_models"),
        ("convnet.in1k", {}, r"no network 'convnet.in1k'; did you mean convnet"),
        ("resnet18.a1_in1", {}, r"no network 'resnet18.a1_in1'; did you mean resnet18, .*resnet18\.a1_in1k"),
        (
            "convnet",
            {"wdith": 3},
            r"convnet has no argument 'wdith'; it takes depth, width, norm, image_size",
        ),
        ("resnet10t", {"wdith": 3}, r"resnet10t has no argument 'wdith'"),
        ("cifar_resnet20", {"depth": 3}, r"cifar_resnet20 fixes the argument 'depth'; it takes widths"),
        ("cifar_wrn_16_1", {"width": 2}, r"cifar_wrn_16_1 fixes the argument 'width'; it takes none"),
        ("resnet10t", {"num_classes": 3}, r"network_args must not hold num_classes"),
        ("convnet", {"in_chans": 3}, r"network_args must not hold in_chans"),
        ("cifar_vgg8", {"image_size": 4}, r"image_size 4 is too small .* it must be 8 or more"),
        ("cifar_alexnet", {"image_size": 7}, r"image_size 7 is too small .* it must be 8 or more"),
        ("cifar_vgg11", {"image_size": 1}, r"image_size must be 2 or more but is 1"),
        ("cifar_vgg11", {"norm": "group"}, r"norm must be instance or batch but is 'group'"),
        ("cifar_resnet18", {"norm": "instance", "image_size": 8}, r"single pixels at image_size 8: choose batch"),
        ("convnet", {"depth": 0}, r"depth must be 1 or more but is 0"),
        ("convnet", {"depth": 1, "image_size": 1}, r"image_size must be 2 or more but is 1"),
        ("convnet", {"depth": 4, "image_size": 8}, r"depth 4 .* image_size 8: it can be 3 at most"),
        ("convnet", {"norm": "group", "width": 6}, r"norm 'group' splits width into 4 equal parts, which 6 cannot be"),
        ("convnet", {"depth": 6}, r"depth 6 leaves nothing of an image of image_size 32: it can be 5 at most"),
        ("convnet", {"norm": "btach"}, r"norm must be instance, batch, layer, group or none but is 'btach'"),
        ("cifar_resnet20", {"pretrained": True}, r"pretrained=True: there are no weights for cifar_resnet20"),
    ],
)
def test_errors_name_the_thing_and_the_way_out(name, args, message):
    with pytest.raises(InputError, match=message):
        create_network(name, num_classes=10, network_args=args)
