"""The network every technique trains leaves the project as safetensors and as a torch.export program."""

import pytest
import torch
from helpers import ids
from settings import SETTINGS


@pytest.mark.parametrize("setting", SETTINGS, ids=ids)
def test_the_plain_network_has_the_recipes_outputs(setting):
    model = setting.model().eval()
    images = torch.randn(3, 1, 8, 8)
    expected = model(images)
    torch.testing.assert_close(model.network(images), expected)
    program = torch.export.export(model.network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(images[:2]), expected[:2])
