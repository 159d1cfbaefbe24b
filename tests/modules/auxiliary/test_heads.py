"""What each kind of head computes, against the formulas."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import trainer
from lightning_recipes.modules.auxiliary import (
    DGL,
    MAN,
    AugLocal,
    FeatureReconstruction,
    InfoPro,
    LocalBatch,
    PredSim,
    contrastive_loss,
    follow,
    similarities,
)
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.networks import create_network
from lightning_recipes.recipes import LocalLearning
from settings import digits, local
from torch import nn


def head_on(auxiliary, network="cifar_resnet8", **arguments):
    """The heads for a network of four units and images of 32 pixels."""
    return LocalLearning(network, 10, auxiliary=auxiliary, image_size=32, **arguments).heads


def batch(features, pixels=None):
    labels = torch.arange(len(features)) % 10
    images = torch.rand(len(features), 3, 32, 32) if pixels is None else pixels
    return LocalBatch(
        lambda logits: F.cross_entropy(logits, labels, reduction="none"), labels, images, lambda: images, images
    )


# -- MAN ---------------------------------------------------------------------------------------------------------------


def test_the_average_follows_as_calculated():
    average = [torch.tensor([2.0, -1.0])]
    storage = average[0].data_ptr()
    for theta, expected in [([1, 1], [1.9, -0.8]), ([0, 2], [1.71, -0.52]), ([4, -2], [1.939, -0.668])]:
        follow(average, [torch.tensor(theta, dtype=torch.float32)], momentum=0.9)
        torch.testing.assert_close(average[0], torch.tensor(expected))
    assert average[0].data_ptr() == storage
    value = [torch.tensor([1.0], dtype=torch.float64)]
    for expected in (1.01, 1.01995, 1.02985025):
        follow(value, [torch.tensor([3.0], dtype=torch.float64)], momentum=0.995)
        assert value[0].item() == pytest.approx(expected, rel=1e-9)


def test_half_of_the_start_is_left_after_138_steps():
    value = [torch.ones(1, dtype=torch.float64)]
    for _ in range(138):
        follow(value, [torch.zeros(1, dtype=torch.float64)], momentum=0.995)
    assert 0.5 < value[0].item() < 0.5025


@pytest.mark.parametrize("rule", ["released", "paper"])
def test_each_rule_follows_the_next_unit_at_its_moment(rule):
    model = local(MAN(DGL("linear"), momentum=0.75, rule=rule), optimizer=lambda p: torch.optim.SGD(p, lr=0.5))
    head, unit = model.heads[0], model.network.blocks[1]
    average, source = head.average[0][0].weight, unit[0].weight
    before = average.detach().clone(), source.detach().clone()
    trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(model, digits())
    if rule == "released":
        # The copy is frozen; the unit's weights are those before the step.
        torch.testing.assert_close(average, 0.75 * before[0] + 0.25 * before[1])
        assert average.grad is None
        assert not torch.equal(before[0], before[1])
    else:
        assert torch.equal(before[0], before[1])
        stepped = before[0] - 0.5 * average.grad
        torch.testing.assert_close(average, 0.75 * stepped + 0.25 * source)
    assert not torch.equal(source, before[1])


def test_a_gradient_flows_through_the_average_to_the_features():
    head = head_on(MAN(DGL("linear")))[1]
    features = torch.randn(4, 16, 32, 32, requires_grad=True)
    for parameter in head.bias.parameters():
        parameter.data.zero_()
    head(features, batch(features)).sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in head.average.parameters())


def test_norms_of_the_average_follow_by_their_weights_and_keep_statistics_of_their_own():
    model = LocalLearning(
        "cifar_resnet8", 10, auxiliary=MAN(DGL("linear"), momentum=0.75), in_chans=1, image_size=8, channels_last=False
    )
    head = model.heads[0]
    source, own = (
        next(layer for layer in part.modules() if isinstance(layer, nn.BatchNorm2d))
        for part in (model.network.blocks[0], head.average)
    )
    source.weight.data.fill_(2.0)
    seen = []
    own.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().mean((0, 2, 3))))
    trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(model, digits())
    torch.testing.assert_close(own.weight, torch.full_like(own.weight, 0.75 * 1 + 0.25 * 2))
    assert len(seen) == 1
    torch.testing.assert_close(own.running_mean, 0.1 * seen[0])  # torch's momentum, from 0
    assert not torch.allclose(own.running_mean, source.running_mean)


def test_the_source_is_not_part_of_the_head():
    model = local(MAN(DGL("linear")))
    assert not any("source" in name for name, _ in model.named_parameters())
    assert model.heads[0].source == ("blocks.1",)


def test_a_layer_that_is_replaced_after_the_cutting_is_followed():
    model = local(MAN(DGL("linear"), momentum=0.75))
    model.network.blocks[1] = copy.deepcopy(model.network.blocks[1])
    model.network.blocks[1][0].weight.data.fill_(2.0)
    average = model.heads[0].average[0][0].weight
    expected = 0.75 * average.detach() + 0.25 * 2
    trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(model, digits())
    torch.testing.assert_close(average, expected)


def test_a_unit_whose_parameters_get_other_names_is_not_followed():
    model = local(MAN(DGL("linear")))
    nn.utils.parametrizations.weight_norm(model.network.blocks[1][0])
    with pytest.raises(InputError, match=r"MAN follows the layers blocks\.1, but"):
        model.heads[0].before_step(model.network)


def test_one_number_is_the_weight_of_the_first_head_and_the_last():
    """InfoPro's authors give one for two modules, which have one head."""
    assert (InfoPro(reconstruction=5, task=1).reconstruction, InfoPro(task=1).task) == ((5, 5), (1, 1))


def test_a_head_behind_a_copy_stands_behind_the_unit_that_is_copied():
    """AugLocal is then made like the units after that one, not like that one once more."""
    model = LocalLearning("cifar_resnet20", 10, auxiliary=MAN(AugLocal(2)), image_size=32)
    alone = LocalLearning("cifar_resnet20", 10, auxiliary=AugLocal(2), image_size=32)
    for head, later in zip(list(model.heads)[:-1], list(alone.heads)[1:], strict=True):
        assert str(head.head.layers) == str(later.layers)


def test_averages_cannot_step_per_module():
    with pytest.raises(InputError, match="step_per_module does not go with MAN"):
        local(MAN(), step_per_module=True)
    with pytest.raises(InputError, match="step_per_module"):
        local(FeatureReconstruction(head=MAN()), step_per_module=True)


# -- InfoPro -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modules", [2, 3, 4])
def test_weights_go_from_the_first_to_the_last_and_are_never_negative(modules):
    heads = head_on(InfoPro(reconstruction=(5.0, 0.0), task=(0.5, 0.1)), num_modules=modules)
    weights = [(head.reconstruction, head.task) for head in heads]
    assert weights[0] == (5.0, 0.5)
    if modules > 2:
        assert weights[-1] == (0.0, 0.1)
    assert min(min(pair) for pair in weights) >= 0
    if modules == 4:
        assert weights[1] == pytest.approx((2.5, 0.3))


def test_published_weights_for_sixteen_modules():
    heads = LocalLearning("cifar_resnet32", 10, auxiliary=InfoPro(), image_size=32).heads
    assert len(heads) == 15
    assert (heads[0].reconstruction, heads[0].task) == (5.0, 0.05)
    assert heads[7].reconstruction == pytest.approx(2.6)
    assert (heads[14].reconstruction, heads[14].task) == pytest.approx((0.2, 0.5))


def test_the_image_that_is_rebuilt_is_the_one_before_normalisation():
    model = LocalLearning("cifar_resnet8", 10, auxiliary=InfoPro(), image_size=32, mean=[0.5] * 3, std=[0.25] * 3)
    pixels, seen = torch.rand(3, 3, 32, 32), []
    head = model.heads[0]
    head.forward = lambda features, batch: (seen.append(batch.pixels()), features.mean((1, 2, 3)))[1]
    model._learn = lambda index, loss: None
    model._training_losses((pixels - 0.5) / 0.25, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(seen[0], pixels)


def test_reconstruction_is_the_cross_entropy_of_the_pixels():
    head = head_on(InfoPro(reconstruction=(1.0, 1.0), task=(0.0, 0.0)))[0]
    head.decoder[-1].weight.data.zero_()
    head.decoder[-1].bias.data.zero_()
    features = torch.randn(2, 16, 32, 32)
    torch.testing.assert_close(head(features, batch(features)), torch.full((2,), math.log(2)))


def test_contrast_against_its_definition():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(6, 4, generator=generator), torch.tensor([0, 0, 0, 1, 1, 2])
    units, expected = F.normalize(features.double(), dim=1), []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        total = sum(math.exp(units[i] @ units[j] / 0.5) for j in others)
        same = [j for j in others if labels[j] == labels[i]]
        terms = [-math.log(math.exp(units[i] @ units[j] / 0.5) / total) for j in same]
        expected.append(sum(terms) / max(1, len(same)))
    losses = contrastive_loss(features, labels, temperature=0.5)
    torch.testing.assert_close(losses, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert losses[5] == 0
    alone = torch.randn(1, 4, requires_grad=True)
    contrastive_loss(alone, torch.zeros(1, dtype=torch.long)).sum().backward()
    assert torch.equal(alone.grad, torch.zeros(1, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cosines_keep_their_precision_under_half_precision(dtype):
    """Divided by a temperature of 0.07, a cosine's error of 2^-9 would be one of 3 % of the probability."""
    features, labels = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 4
    contrast, similar = contrastive_loss(features, labels), similarities(features)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(contrastive_loss(features, labels), contrast)
        torch.testing.assert_close(similarities(features), similar)


# -- PredSim -----------------------------------------------------------------------------------------------------------


def test_similarities_of_labels_are_one_or_minus_one_over_the_others():
    same = similarities(F.one_hot(torch.tensor([0, 1, 0, 2]), 4).float())
    torch.testing.assert_close(
        same, torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]) * 4 / 3 - 1 / 3
    )


def test_similarities_are_symmetric_with_ones_on_the_diagonal():
    of_maps = similarities(torch.randn(5, 8, 4, 4))
    torch.testing.assert_close(of_maps, of_maps.T)
    torch.testing.assert_close(of_maps.diagonal(), torch.ones(5))


def test_predsim_mixes_its_two_losses():
    features = torch.randn(4, 16, 32, 32)
    known = batch(features)
    torch.manual_seed(0)
    both = head_on(PredSim(similarity=0.75))[0]
    both.predict[-1].bias.data.zero_()
    compared = (
        (similarities(both.compare(features)) - similarities(F.one_hot(known.labels, 10).float())).square().mean(1)
    )
    torch.testing.assert_close(both(features, known), 0.25 * math.log(10) + 0.75 * compared)
    assert both.predict[0].output_size == (16, 16)  # 16 channels of 16x16 pixels are 4096 features


# -- feature reconstruction, DGL ---------------------------------------------------------------------------------------


def test_a_module_rebuilds_its_own_normalised_input():
    heads = head_on(FeatureReconstruction(weight=(2.0, 2.0)))
    inputs, features = torch.randn(2, 16, 32, 32) * 7 + 3, torch.randn(2, 16, 32, 32)
    head = heads[1]
    head.head.forward = lambda features, batch: torch.zeros(len(features))
    for parameter in head.decoder.parameters():
        parameter.data.zero_()
    known = LocalBatch(lambda x: x, torch.zeros(2), inputs, lambda: inputs, inputs)
    # The mean square of normalised values is 1.
    torch.testing.assert_close(head(features, known), torch.full((2,), 2.0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
@pytest.mark.parametrize(
    "auxiliary",
    [AugLocal(1), DGL(), MAN(DGL()), InfoPro(), PredSim(), FeatureReconstruction()],
    ids=lambda a: type(a).__name__,
)
def test_heads_fit_tokens_and_maps_of_either_order(name, auxiliary):
    size = {"vit_tiny_patch16_224": 32, "swin_tiny_patch4_window7_224": 64, "convnext_atto": 64}[name]
    small = {"depth": 2} if "vit" in name else {"depths": (1, 1, 2, 1)}
    small |= {"embed_dim": 24, "num_heads": 2} if "vit" in name else {}
    small |= {"embed_dim": 12, "num_heads": (1, 2, 2, 2), "window_size": 2} if "swin" in name else {}
    small |= {"dims": (8, 16, 24, 32)} if "convnext" in name else {}
    network = create_network(name, num_classes=10, network_args=small, image_size=size)
    model = LocalLearning(network, 10, auxiliary=auxiliary, image_size=size)
    model._learn = lambda index, loss: loss.backward()
    images = torch.randn(4, 3, size, size)
    _, losses, _ = model._training_losses(images, torch.arange(4))
    losses.mean().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DGL("deep"), "head must be"),
        (lambda: MAN(momentum=2), "momentum must be in"),
        (lambda: MAN(rule="both"), "rule must be"),
        (lambda: InfoPro("both"), "mode must be"),
        (lambda: InfoPro(reconstruction=(1.0, 0.0), task=(1.0, 0.0)), "without a loss"),
        (lambda: InfoPro(head="2f"), "head says"),
        (lambda: InfoPro(task=(1.0, -1.0)), "task must be"),
        (lambda: InfoPro("contrast", temperature=0), "temperature must be"),
        (lambda: InfoPro(reconstruction=-1.0), "reconstruction must be one number, or two"),
        (lambda: InfoPro(reconstruction=(math.nan, 1.0)), "reconstruction must be one number, or two"),
        (lambda: InfoPro(hidden=0), "hidden must be"),
        (lambda: MAN("DGL"), "head must be a kind of head"),
        (lambda: local(MAN(MAN()), num_modules=3), "MAN needs a unit to follow"),
        (lambda: FeatureReconstruction(head=DGL), "head must be a kind of head"),
        (lambda: PredSim(similarity=1.5), "similarity must be in"),
        (lambda: PredSim(features=0), "features must be"),
        (lambda: FeatureReconstruction((1.0, -1.0)), "weight must be"),
    ],
)
def test_what_cannot_be_is_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
