"""AugLocal's choice of units, depths and widths, against the released code's."""

from collections import Counter

import pytest
import torch
from lightning_recipes.modules.auxiliary import AugLocal, auglocal_depths, auglocal_units
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.networks._blocks import BasicBlock
from lightning_recipes.recipes import LocalLearning


@pytest.mark.parametrize(
    ("unit", "units", "depth", "expected"),
    [
        (0, 16, 2, [8, 15]),
        (7, 16, 2, [11, 15]),
        (12, 16, 2, [14, 15]),
        (13, 16, 2, [14, 15]),
        (0, 16, 5, [3, 6, 9, 12, 15]),
        (0, 55, 3, [18, 36, 54]),
        (26, 55, 2, [40, 54]),
        (50, 55, 2, [52, 54]),
        (0, 17, 4, [4, 8, 12, 16]),
        (14, 16, 5, [15]),
    ],
)
def test_chosen_units(unit, units, depth, expected):
    assert auglocal_units(unit, units, depth) == expected


def test_the_last_unit_is_always_chosen_and_none_twice():
    for unit in range(30):
        for depth in range(1, 12):
            chosen = auglocal_units(unit, 31, depth)
            assert chosen[-1] == 30
            assert chosen == sorted(set(chosen))


def test_depths():
    assert auglocal_depths(5, 11) == [5, 5, 5, 4, 4, 4, 4, 3, 3, 3]
    assert Counter(auglocal_depths(3, 13)) == {3: 6, 2: 6}
    assert Counter(auglocal_depths(3, 52)) == {3: 25, 2: 26}
    assert Counter(auglocal_depths(5, 50)) == {5: 12, 4: 25, 3: 12}
    assert set(auglocal_depths(2, 14)) == {2}
    assert auglocal_depths(4, 2) == [4]
    assert auglocal_depths(4, 5, 1.0) == [4, 3, 2, 1]


def heads(depth, network="cifar_resnet32"):
    return LocalLearning(network, 10, auxiliary=AugLocal(depth), image_size=32)


def test_resnet32_has_the_published_modules_and_widths():
    model = heads(2)
    assert model.num_modules == 14
    assert len(model.module_parameters(13)) > len(model.module_parameters(3)) / 2
    blocks = [layer for layer in model.heads[0].layers if isinstance(layer, BasicBlock)]
    # From 16 channels at 32 pixels to 32, and to 64: each doubling halves the map.
    assert [(b.conv1.in_channels, b.conv1.out_channels, b.conv1.stride[0]) for b in blocks] == [
        (16, 32, 2),
        (32, 64, 2),
    ]
    trained = sum(p.numel() for p in model.parameters())
    assert trained == pytest.approx(1.808e6, rel=0.001)  # counted in the released code


def test_a_halving_that_is_owed_is_paid_by_the_next_block():
    # One block from 16 to 64 channels halves the map once; the second halving is left out, as there is no next one.
    block = heads(1).heads[0].layers[0]
    assert (block.conv1.in_channels, block.conv1.out_channels, block.conv1.stride[0]) == (16, 64, 2)


def test_heads_are_not_the_network_and_do_not_start_like_it():
    model = LocalLearning("cifar_vgg8", 10, auxiliary=AugLocal(1, merge_last=False), image_size=32)
    copy, original = model.heads[3].layers[0][0][0], model.network.blocks[4][0]
    assert copy.weight.shape == original.weight.shape
    assert not torch.equal(copy.weight, original.weight)
    assert torch.allclose(copy.weight.std(), original.weight.std(), rtol=1e-3)


def test_what_cannot_be_is_refused():
    for arguments in ({"depth": 0}, {"pyramid": 2.0}):
        with pytest.raises(InputError, match=next(iter(arguments))):
            AugLocal(**arguments)
