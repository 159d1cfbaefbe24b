"""A run that diverges, from the command line."""

import re
from pathlib import Path

import torch


def test_absurd_learning_rate(recipes):
    result = recipes("fit TINY --trainer.max_epochs 9 --model.optimizer.lr 1e30")
    assert result.code == 1
    assert re.match(r"error: the training loss was not finite at step \d \(epoch \d\)\.", result.error)


def test_last_good_checkpoint_is_kept_and_named(recipes, tmp_path, monkeypatch):
    (tmp_path / "poison.py").write_text(
        "import torch\n"
        "from lightning.pytorch import Callback\n"
        "class Poison(Callback):\n"
        "    def on_train_batch_start(self, trainer, module, *_):\n"
        "        if trainer.global_step == 7:\n"
        "            next(module.parameters()).data.fill_(torch.nan)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = recipes("fit TINY --trainer.max_epochs 3 --trainer.callbacks+=poison.Poison")
    assert result.code == 1
    assert "not finite at step 7 (epoch 1)" in result.err
    kept = Path(re.search(r"The last good checkpoint is (.*?\.ckpt)\.", result.err)[1])
    assert kept.name == "last.ckpt"
    assert sorted(file.name for file in kept.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    for file in kept.parent.iterdir():
        content = torch.load(file)
        assert content["global_step"] == 5
        assert all(weight.isfinite().all() for weight in content["state_dict"].values())
    again = recipes(f"fit TINY --trainer.max_epochs 2 --ckpt_path {kept}")
    assert again.code == 0
