import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.networks.normalized import Normalized
from torch import nn


def test_the_network_gets_normalised_images_in_the_format_asked_for():
    seen = []
    network = nn.Identity()
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pixels = torch.rand(2, 3, 4, 4)
    output = Normalized(network, [0.1, 0.2, 0.3], [1.0, 2.0, 4.0], memory_format=torch.channels_last)(pixels)
    expected = torch.stack([(pixels[:, c] - m) / s for c, (m, s) in enumerate([(0.1, 1), (0.2, 2), (0.3, 4)])], 1)
    torch.testing.assert_close(output, expected)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert not Normalized(network, [0.0], [1.0]).state_dict()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [1.0, 1.0], r"std \[1.0, 1.0\] must have one value for each of in_chans=1 channels"),
        ([0.5], [-1.0], r"std must be positive but is \[-1"),
    ],
)
def test_wrong_statistics_are_refused(mean, std, message):
    with pytest.raises(InputError, match=message):
        Normalized(nn.Identity(), mean, std)
