"""`recipes.train`, weights to start from, and a stranger's module that returns losses (N,)."""

from pathlib import Path

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.recipes import train

TINY = {
    "model.network_args.depth": 1,
    "model.network_args.width": 4,
    "data.subset": 8,
    "data.batch_size": 16,
    "trainer.max_epochs": 1,
}


def test_train_returns_the_figures_of_the_run(recipes):
    figures = train("digits/supervised", "ema", options={**TINY, "run_dir": "mine", "model.mixup": 0.2})
    assert figures["run folder"] == "mine"
    assert 0 <= figures["best val/accuracy"] <= 1
    assert Path(figures["best checkpoint"]).is_file()
    assert set(train("digits/supervised", options={**TINY, "trainer.fast_dev_run": True})) >= {"train/loss", "val/loss"}
    with pytest.raises(InputError, match="no recipe or file 'digits/nothing'"):
        train("digits/nothing")


def test_a_run_starts_from_the_weights_of_another(recipes):
    first = recipes("fit TINY --run_dir first")
    assert first.code == 0
    second = recipes(
        "fit TINY --model.weights first/checkpoints/best.ckpt --model.optimizer.lr 0.0 --model.optimizer.weight_decay 0"
    )
    assert second.code == 0, second.err
    assert "Starting from 6 of 6 weights of first/checkpoints/best.ckpt." in second.err
    states = [torch.load(run / "checkpoints/last.ckpt")["state_dict"] for run in (first.run, second.run)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items() if "num_batches" not in name)
    missing = recipes("fit TINY --model.weights nowhere.ckpt")
    assert missing.code == 2
    assert "nowhere.ckpt" in missing.error


def test_a_strangers_losses_train_without_a_selecting_callback(recipes, monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    Path("strangers.py").write_text(STRANGER)
    command = "fit --model strangers.PerSample --data Digits --data.batch_size 64 --trainer.max_epochs 1"
    assert recipes(f"{command} --run_dir a").code == 0
    assert recipes(f"{command} --run_dir b -c infobatch").code == 0


STRANGER = """
import torch
from lightning.pytorch import LightningModule


class PerSample(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.layer(images.flatten(1)), labels, reduction="none")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""
