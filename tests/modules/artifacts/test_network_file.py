import pytest
import safetensors.torch
import torch
from lightning_recipes.modules.artifacts.network_file import load_network, save_network
from lightning_recipes.modules.core.errors import InputError
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
    "preprocessing": {"crop_pct": 0.875, "interpolation": "bicubic"},
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
    assert facts == {**FACTS, "version": 1}


def test_the_layout_in_memory_does_not_matter(tmp_path):
    saved = network().eval().to(memory_format=torch.channels_last)
    save_network(tmp_path / "n.safetensors", saved, **FACTS)
    loaded, _ = load_network(tmp_path / "n.safetensors")
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(loaded(images), saved(images))


def test_pretrained_weights_are_not_fetched_again(tmp_path):
    args = {**FACTS["network_args"], "pretrained": True, "checkpoint_path": "gone.pth"}
    save_network(tmp_path / "n.safetensors", network(), **{**FACTS, "network_args": args})
    load_network(tmp_path / "n.safetensors")


def test_tied_weights_survive(tmp_path, monkeypatch):
    def tied(*_, **__):
        ours = network()
        ours.blocks[1][0].bias = ours.blocks[0][0].bias
        return ours.eval()

    saved = tied()
    save_network(tmp_path / "n.safetensors", saved, **FACTS)
    monkeypatch.setattr("lightning_recipes.modules.artifacts.network_file.create_network", tied)
    loaded, facts = load_network(tmp_path / "n.safetensors")
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(images), saved(images))
    assert loaded.blocks[1][0].bias is loaded.blocks[0][0].bias
    assert facts == {**FACTS, "version": 1}


def test_files_that_cannot_be_used_are_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"missing\.safetensors does not exist"):
        load_network(tmp_path / "missing.safetensors")
    (tmp_path / "junk").write_text("junk" * 10)
    with pytest.raises(InputError, match="junk is not a safetensors file"):
        load_network(tmp_path / "junk")
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(InputError, match="other does not say what network it holds"):
        load_network(tmp_path / "other")
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "half", metadata={"num_classes": "3"})
    with pytest.raises(InputError, match="half does not say what network it holds"):
        load_network(tmp_path / "half")
    monkeypatch.setattr("lightning_recipes.modules.artifacts.network_file.VERSION", 2)
    save_network(tmp_path / "newer", network(), **FACTS)
    monkeypatch.undo()
    with pytest.raises(InputError, match="newer has version 2, this lightning-recipes reads 1"):
        load_network(tmp_path / "newer")
    save_network(tmp_path / "own", network(), **{**FACTS, "name": None})
    with pytest.raises(InputError, match="own holds a module that was not built by name"):
        load_network(tmp_path / "own")
    save_network(tmp_path / "wide", network(), **{**FACTS, "network_args": {"depth": 2, "width": 16}})
    with pytest.raises(InputError, match="wide does not fit convnet"):
        load_network(tmp_path / "wide")
