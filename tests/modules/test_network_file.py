import pytest
import safetensors.torch
import torch
from lightning_recipes.modules.errors import InputError
from lightning_recipes.modules.network_file import load_network, save_network
from lightning_recipes.modules.networks import create_network

FACTS = {
    "name": "convnet",
    "network_args": {"depth": 2, "width": 8},
    "num_classes": 3,
    "in_chans": 1,
    "image_size": 8,
    "mean": [0.5],
    "std": [0.25],
    "class_names": ["a", "b", "c"],
}


def network():
    return create_network("convnet", num_classes=3, in_chans=1, network_args=FACTS["network_args"], image_size=8)


def test_a_network_comes_back_with_its_outputs_and_facts(tmp_path):
    saved = network().eval()
    save_network(tmp_path / "n.safetensors", saved, **FACTS)
    loaded, facts = load_network(tmp_path / "n.safetensors")
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(images), saved(images))
    assert not loaded.training
    assert facts == FACTS


def test_pretrained_weights_are_not_fetched_again(tmp_path):
    args = {**FACTS["network_args"], "pretrained": True}
    save_network(tmp_path / "n.safetensors", network(), **{**FACTS, "network_args": args})
    load_network(tmp_path / "n.safetensors")


def test_tied_weights_survive(tmp_path):
    def tied():
        ours = network()
        ours.blocks[1][0].bias = ours.blocks[0][0].bias
        return ours.eval()

    saved, loaded = tied(), tied()
    save_network(tmp_path / "n.safetensors", saved, **FACTS)
    safetensors.torch.load_model(loaded, str(tmp_path / "n.safetensors"))
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(images), saved(images))


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(InputError, match=r"missing\.safetensors does not exist"):
        load_network(tmp_path / "missing.safetensors")
    (tmp_path / "junk").write_text("junk" * 10)
    with pytest.raises(InputError, match="junk is not a safetensors file"):
        load_network(tmp_path / "junk")
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(InputError, match="other does not say what network it holds"):
        load_network(tmp_path / "other")
    save_network(tmp_path / "own", network(), **{**FACTS, "name": None})
    with pytest.raises(InputError, match="own holds a module that was not built by name"):
        load_network(tmp_path / "own")
    save_network(tmp_path / "wide", network(), **{**FACTS, "network_args": {"depth": 2, "width": 16}})
    with pytest.raises(InputError, match="wide does not fit convnet"):
        load_network(tmp_path / "wide")
