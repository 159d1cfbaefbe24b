"""The matching losses by hand, and what they must not depend on."""

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.matching import (
    ClassBatch,
    DataDAM,
    DistributionMatching,
    GradientMatching,
    attention_maps,
    attention_matching_loss,
    distribution_matching_loss,
    gradient_matching_loss,
)
from lightning_recipes.modules.networks import create_network

FEATURES = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[2.0, 0.0], [1.0, 1.0]]]])


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (1.0, [0.707107, 0.471405, 0.235702, 0.471405]),
        (2.0, [0.737210, 0.589768, 0.147442, 0.294884]),
        (4.0, [0.724882, 0.682242, 0.042640, 0.085280]),
        (3.0, [value / 150**0.5 for value in (9, 8, 1, 2)]),
    ],
)
def test_attention_maps_by_hand(power, expected):
    maps = attention_maps(FEATURES, power=power)
    torch.testing.assert_close(maps, torch.tensor([expected]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(attention_maps(7 * FEATURES, power=power), maps)


@pytest.mark.parametrize(("power", "expected"), [(1.0, 1 / 18), (4.0, 0.00181818)])
def test_maps_are_normalised_before_they_are_averaged(power, expected):
    real = torch.cat([FEATURES, FEATURES.flip(3)])
    labels = torch.zeros(2, dtype=torch.long)
    loss = attention_matching_loss([real], [FEATURES], labels, labels[:1], num_classes=1, power=power)
    # The other order would give .0563494 and .00181901.
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_distribution_matching_by_hand():
    real, synthetic = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[2.0, 2.0]])
    labels = torch.zeros(2, dtype=torch.long)
    assert distribution_matching_loss(real, synthetic, labels, labels[:1], num_classes=1).item() == 1.0
    # A class that one side lacks counts nothing.
    assert distribution_matching_loss(real, synthetic, labels, labels[:1] + 1, num_classes=2).item() == 0.0
    assert distribution_matching_loss(real, synthetic, labels + 2, labels[:1] + 2, num_classes=4).item() == 1.0


def test_gradient_matching_by_hand():
    real, synthetic = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, 1.0]])
    assert gradient_matching_loss([real], [synthetic]).item() == pytest.approx(1.04, abs=1e-5)
    assert gradient_matching_loss([5 * real], [0.5 * synthetic]).item() == pytest.approx(1.04, abs=1e-5)
    bias = torch.ones(2)
    assert gradient_matching_loss([real, bias], [synthetic, -bias]).item() == pytest.approx(1.04, abs=1e-5)


def network(norm="instance", width=8, depth=2, size=8):
    torch.manual_seed(1)
    arguments = {"depth": depth, "width": width, "norm": norm}
    return create_network("convnet", num_classes=3, in_chans=1, network_args=arguments, image_size=size)


def class_batch(number, seed=0, classes=3, size=8):
    images = torch.randn(classes * number, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return ClassBatch(images, torch.arange(classes).repeat_interleave(number), [number] * classes)


def total(matching, net, real, synthetic):
    return torch.stack(list(matching.terms(net, real, synthetic, 3).values())).sum()


def attached(matching, net, images_per_class=10):
    matching.attach(net, images_per_class=images_per_class)
    return matching


MATCHINGS = [DataDAM, DistributionMatching, GradientMatching]


@pytest.mark.parametrize("kind", MATCHINGS)
def test_equal_sets_have_no_distance(kind):
    net, batch = network(), class_batch(4)
    assert total(attached(kind(), net), net, batch, batch).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", MATCHINGS)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_classes_are_isolated_unless_the_norm_mixes_them(kind, norm):
    """The loss of class 0 gives other classes' images no gradient, but for batch normalisation."""
    net, real, start = network(norm), class_batch(4), class_batch(2, seed=1)
    synthetic = ClassBatch(start.images.clone().requires_grad_(), start.labels, start.counts)
    whole = attached(kind(), net)
    total(whole, net, real, synthetic).backward()
    joint = synthetic.images.grad.clone()
    # Real images of class 0 alone: classes that only one side has count nothing.
    of_class = ClassBatch(real.images[:4], real.labels[:4], [4])
    alone = ClassBatch(start.images[:2].clone().requires_grad_(), start.labels[:2], [2])
    total(whole, net, of_class, alone).backward()
    difference = (alone.images.grad - joint[:2]).abs().max().item()
    assert whole.mixes_classes == (norm == "batch")
    assert (difference < 1e-6 * joint.abs().max()) == (norm == "instance")


@pytest.mark.parametrize("kind", MATCHINGS)
def test_order_within_a_class_and_repetition_do_not_matter(kind):
    net, real, synthetic = network(), class_batch(4), class_batch(2, seed=1)
    matching = attached(kind(), net)
    expected = total(matching, net, real, synthetic)
    order = torch.tensor([2, 0, 3, 1, 4, 6, 5, 7, 11, 10, 9, 8])
    shuffled = ClassBatch(real.images[order], real.labels, real.counts)
    doubled = ClassBatch(real.images.repeat_interleave(2, 0), real.labels.repeat_interleave(2), [8, 8, 8])
    for batch in (shuffled, doubled):
        torch.testing.assert_close(total(matching, net, batch, synthetic), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [DataDAM, DistributionMatching])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_chunks_of_real_images_change_nothing(kind, norm):
    """With batch normalisation there are none, as its statistics are of all images."""
    losses = []
    for chunk_size in (5, 100):
        net = network(norm)
        matching = attached(kind(chunk_size=chunk_size), net)
        losses.append(total(matching, net, class_batch(4), class_batch(2, seed=1)))
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


def test_the_class_agrees_with_the_functions():
    net, real, synthetic = network(), class_batch(4), class_batch(2, seed=1)
    terms = attached(DataDAM(mmd_weight=0.5, scale=10.0), net).terms(net, real, synthetic, 3)
    features, embeddings = [], []
    for batch in (real, synthetic):
        features.append([net.blocks[0][:3](batch.images)])
        embeddings.append(net.blocks(batch.images).flatten(1))
    labels = real.labels, synthetic.labels
    attention = attention_matching_loss(*features, *labels, num_classes=3)
    mmd = distribution_matching_loss(*embeddings, *labels, num_classes=3)
    torch.testing.assert_close(terms["attention"], 10 * attention)
    torch.testing.assert_close(terms["mmd"], 5 * mmd)


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_vgg8", "cifar_wrn_16_1"])
def test_any_network_can_match(name):
    net = create_network(name, num_classes=3, in_chans=1, image_size=8)
    terms = attached(DataDAM(), net).terms(net, class_batch(4), class_batch(2, seed=1), 3)
    assert all(torch.isfinite(term) and term > 0 for term in terms.values())


def test_gradient_matching_has_the_gradient_of_the_joint_sum():
    net, real, synthetic = network(), class_batch(4), class_batch(2, seed=1)
    matching = attached(GradientMatching(1, 1), net)
    images = synthetic.images.clone().requires_grad_()
    loss = total(matching, net, real, ClassBatch(images, synthetic.labels, synthetic.counts))
    (found,) = torch.autograd.grad(3 * loss, images)
    weights, losses = list(net.parameters()), []
    for label in range(3):
        pair = []
        for batch, of_class in ((real.images, real.labels == label), (images, synthetic.labels == label)):
            value = torch.nn.functional.cross_entropy(net(batch[of_class]), torch.full((int(of_class.sum()),), label))
            pair.append(torch.autograd.grad(value, weights, create_graph=True))
        losses.append(gradient_matching_loss(*pair))
    expected = torch.stack(losses).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(found, 3 * torch.autograd.grad(expected, images)[0], rtol=1e-5, atol=1e-6)


class Saved:
    """A tensor that a graph keeps; counts the numbers in memory."""

    live = peak = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Saved.live += tensor.numel()
        Saved.peak = max(Saved.peak, Saved.live)

    def __del__(self):
        Saved.live -= self.tensor.numel()


def test_the_graphs_of_gradient_matching_do_not_grow_with_the_classes():
    peaks = []
    for classes in (3, 12):
        net = network()
        matching = attached(GradientMatching(1, 1), net)
        real, synthetic = class_batch(4, classes=classes), class_batch(4, seed=1, classes=classes)
        labels = [batch.labels % 3 for batch in (real, synthetic)]  # the network has three outputs
        images = synthetic.images.requires_grad_()
        Saved.peak = Saved.live
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            matching.terms(
                net, ClassBatch(real.images, labels[0], real.counts), ClassBatch(images, labels[1], real.counts), 3
            )["gradient"].backward()
        peaks.append(Saved.peak)
    # Only the images themselves are kept of all classes.
    assert peaks[1] < 1.3 * peaks[0]


def test_training_the_network_of_gradient_matching_follows_the_published_loops():
    net, batch, sizes = network(), class_batch(10), []

    def augment(images, number):
        sizes.append(len(images))
        return images

    matching = attached(GradientMatching(network_batch_size=20), net)
    assert matching.network_steps == 10
    before = torch.nn.functional.cross_entropy(net(batch.images), batch.labels).item()
    matching.train_network(net, batch.images, batch.labels, augment=augment, seed=0)
    assert sizes == [20, 10] * 50
    assert torch.nn.functional.cross_entropy(net(batch.images), batch.labels).item() < before


def test_gradient_matching_fixes_the_statistics_of_batch_normalisation():
    """Those of 16 real images of each class, for real and synthetic images of any class alike."""
    net, real, synthetic = network("batch"), class_batch(20), class_batch(2, seed=1)
    matching = attached(GradientMatching(), net)
    loss = total(matching, net, real, synthetic)
    used = torch.cat([images[:16] for images in real.images.split(20)])
    fixed = network("batch").train()
    for norm in (fixed.blocks[0][1], fixed.blocks[1][1]):
        norm.momentum = 1.0
    fixed(used)
    fixed.eval()
    expected = 0.0
    for label in range(3):
        gradients = []
        for batch in (real, synthetic):
            of_class = batch.labels == label
            losses = torch.nn.functional.cross_entropy(fixed(batch.images[of_class]), batch.labels[of_class])
            gradients.append(torch.autograd.grad(losses, list(fixed.parameters())))
        expected += gradient_matching_loss(*gradients).item()
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    # In between it is trained with the statistics of its batches.
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(norm.training and norm.momentum == 0.1 for norm in norms)


@pytest.mark.parametrize(
    ("depth", "size", "classes", "parameters"),
    [(3, 32, 10, 320_010), (3, 32, 100, 504_420), (4, 64, 200, 857_160), (4, 64, 1000, 2_496_360)],
)
def test_networks_have_the_published_size(depth, size, classes, parameters):
    net = create_network("convnet", num_classes=classes, network_args={"depth": depth}, image_size=size)
    assert sum(weight.numel() for weight in net.parameters()) == parameters
    assert net.num_features == 2048


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DataDAM("paper!"), "preset must be paper or released_code"),
        (lambda: DataDAM(power=0), "power must be positive but is 0"),
        (lambda: DataDAM(mmd_weight=-1), "mmd_weight must be at least 0"),
        (lambda: DataDAM(scale=0), "scale must be positive"),
        (lambda: DataDAM(power=float("nan")), "power must be positive but is nan"),
        (lambda: DataDAM(mmd_weight=float("nan")), "mmd_weight must be at least 0, and finite, but is nan"),
        (lambda: DataDAM(layers=[]), r"layers must be a list of one name or more but is \[\]"),
        (lambda: DataDAM(layers="blocks.0"), "layers must be a list of one name or more but is 'blocks.0'"),
        (lambda: DistributionMatching(0), "scale must be positive"),
        (lambda: DistributionMatching(float("nan")), "scale must be positive but is nan"),
        (lambda: DistributionMatching(chunk_size=0), "chunk_size must be at least 1"),
        (lambda: GradientMatching(0), "outer_loop must be at least 1"),
        (lambda: GradientMatching(1, -1), "inner_loop must be at least 0"),
        (lambda: GradientMatching(network_lr=0), "network_lr must be positive"),
        (lambda: GradientMatching(network_batch_size=0), "network_batch_size must be at least 1"),
        (lambda: attached(GradientMatching(), network(), 7), "images_per_class 7 has no published loops"),
        (lambda: attached(DataDAM(), torch.nn.Linear(1, 1)), "forward_features"),
        (lambda: attached(DataDAM(layers=["blocks.9"]), network()), "no layer 'blocks.9'"),
        (lambda: attached(DataDAM(), network(depth=1)), "neither two nn.ReLU nor two blocks"),
    ],
)
def test_errors_name_the_argument(build, message):
    with pytest.raises(InputError, match=message):
        build()
