"""What heads are built of: sizes, initialization, and what is copied."""

import math

import pytest
import torch
from helpers import trainer
from lightning_recipes.modules.auxiliary import (
    DGL,
    MAN,
    AugLocal,
    FeatureReconstruction,
    InfoPro,
    LocalBatch,
    PredSim,
)
from lightning_recipes.modules.auxiliary._copies import Readout
from lightning_recipes.recipes import LocalLearning
from settings import digits, local
from torch import nn


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_heads_of_the_papers_own_code():
    """Of 128 channels, by that code (auxillary_classifier2), but for a norm of 256 that it does not use in an MLP."""
    for head, count in {"mlp-sr": 846_090, "mlp": 796_170, "cnn": 300_810}.items():
        assert parameters(DGL(head, source="dgl").build(CutStub((2, 128, 32, 32)))) == count


class CutStub:
    """As much of a cut as heads on plain maps look at."""

    channels_last, num_classes, in_chans = False, 10, 3

    def __init__(self, features):
        self.features = features

    def share(self):
        return 0.0


@pytest.mark.parametrize("auxiliary", [DGL(), DGL("cnn"), InfoPro()])
def test_convolutions_of_heads_are_he_normal(auxiliary):
    torch.manual_seed(0)
    for layer in auxiliary.build(CutStub((2, 64, 16, 16))).modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 1000:
            expected = math.sqrt(2 / (layer.out_channels * layer.kernel_size[0] ** 2))
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.06)
            assert layer.weight.abs().max() > 2.5 * expected  # a uniform distribution ends at 1.73


def test_the_papers_own_dgl_keeps_pytorchs_initialization():
    first = next(
        layer for layer in DGL(source="dgl").build(CutStub((2, 64, 16, 16))).modules() if isinstance(layer, nn.Conv2d)
    )
    assert first.weight.abs().max() <= 1 / 8


def test_first_reconstruction_loss_is_that_of_the_authors_code():
    """About 1.05 there, by the decoder's He-normal start; 0.69, log 2, is of a decoder that says nothing."""
    values = []
    for seed in range(4):
        torch.manual_seed(seed)
        model = LocalLearning("cifar_resnet32", 10, auxiliary=InfoPro(reconstruction=1.0, task=0.0), image_size=32)
        pixels = torch.rand(64, 3, 32, 32)
        maps = torch.relu(torch.randn(64, 16, 32, 32))
        known = LocalBatch(torch.Tensor.sum, torch.zeros(64), pixels, lambda pixels=pixels: pixels, pixels)
        values.append(model.heads[0](maps, known).mean().item())
    assert 0.85 < sum(values) / 4 < 1.3


@pytest.mark.parametrize(
    ("shape", "size"),
    [((128, 32, 32), (4, 8)), ((512, 8, 8), (2, 4)), ((32, 16, 16), (8, 16)), ((16, 16, 16), (16, 16))],
)
def test_predsim_pools_as_the_authors_do(shape, size):
    head = PredSim().build(CutStub((2, *shape)))
    assert head.predict[0].output_size == size
    assert head.predict[2].in_features == shape[0] * size[0] * size[1] <= 4096


def test_auglocal_reads_out_the_mean_where_the_networks_end_outweighs_its_units():
    with torch.device("meta"):
        model = LocalLearning("vgg13_bn", 1000, auxiliary=AugLocal(4, pyramid=0, merge_last=False), image_size=224)
        other = LocalLearning("cifar_resnet32", 10, auxiliary=AugLocal(1), image_size=32)
    assert parameters(model.network) > 130e6
    assert parameters(model.heads) < 60e6  # with copies of the end 1,166 million
    assert isinstance(model.heads[0].layers[-1], Readout)
    assert not any(isinstance(layer, Readout) for layer in other.heads.modules())


def test_a_target_is_kept_from_layers_that_work_in_place():
    """The second module begins with such a layer; its target is what it was given."""

    def blocks(inplace):
        torch.manual_seed(0)
        units = [nn.Sequential(nn.ReLU(inplace=inplace), nn.Conv2d(4, 4, 3, padding=1)) for _ in range(3)]
        end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
        network = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1)), *units, end)
        model = LocalLearning(
            network, 10, auxiliary=FeatureReconstruction(), units=["0", "1", "2", "3"], in_chans=1, image_size=8
        )
        run = trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0)
        run.fit(model, digits())
        return run.callback_metrics["train/local_loss_1"]

    assert blocks(True) == blocks(False)


def test_a_momentum_copy_inside_another_follows_the_unit_behind():
    model = local(MAN(MAN(DGL("linear"), momentum=0.5), momentum=0.5), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    (head,) = model.heads
    inner, unit = head.head.average[0][0].weight, model.network.blocks[2][0].weight
    expected = (inner + unit) / 2
    trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(model, digits())
    torch.testing.assert_close(head.head.average[0][0].weight, expected)
