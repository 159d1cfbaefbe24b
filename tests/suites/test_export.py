"""The network every technique trains leaves the project as safetensors and as a torch.export program."""

import pytest
import safetensors.torch
import torch
from helpers import ids
from settings import SETTINGS


@pytest.mark.parametrize("setting", [s for s in SETTINGS if not s.makes_images], ids=ids)
def test_the_plain_network_has_the_recipes_outputs(setting, tmp_path):
    model = setting.model().eval()
    images = torch.randn(3, 1, 8, 8)
    expected = model(images)
    safetensors.torch.save_model(model.network, str(tmp_path / "network.safetensors"))
    fresh = setting.model().network.eval()
    safetensors.torch.load_model(fresh, str(tmp_path / "network.safetensors"))
    assert torch.equal(fresh(images), expected)
    program = torch.export.export(model.network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "network.pt2")
    torch.testing.assert_close(torch.export.load(tmp_path / "network.pt2").module()(images[:2]), expected[:2])
