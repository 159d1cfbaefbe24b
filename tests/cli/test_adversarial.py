"""Adversarial training from the command line, up to AutoAttack."""

import json
import sys
from pathlib import Path

import pytest

ATTACKED = (
    "fit -c digits/pgd_at --model.network_args.depth 1 --model.network_args.width 4 --data.subset 8"
    " --data.batch_size 16 --trainer.max_epochs 1 --model.attack.steps 2"
)


def test_the_end_of_a_test_is_autoattack(recipes):
    pytest.importorskip("pyautoattack")
    run = recipes(f"{ATTACKED} --trainer.callbacks.images 20").run
    result = recipes(f"test -c {run}/recipe.yaml --ckpt_path {run}/checkpoints/best.ckpt --run_dir tested")
    assert result.code == 0, result.err
    assert "on 20 test images" in result.out
    found = json.loads(Path("tested/metrics.json").read_text())
    assert found["test/autoattack_accuracy"] <= found["test/pgd20_accuracy"] <= found["test/clean_accuracy"]
    assert f"accuracy under AutoAttack {found['test/autoattack_accuracy']:.4f}" in result.out
    assert {"test/robust_accuracy", "test/masking_signs", "test/fgsm_accuracy"} <= set(found)


def test_the_attack_is_chosen_on_the_line_and_knows_the_data(recipes):
    result = recipes(f"{ATTACKED} --model.attack.norm l2 --model.attack.eps 0.5 --model.eval_attack.steps 3")
    assert result.code == 0, result.err
    text = (result.run / "recipe.yaml").read_text()
    assert "norm: l2" in text
    assert "val/robust_accuracy" in result.out


def test_without_the_extra_training_works_and_a_test_says_what_to_install(recipes, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    run = recipes(ATTACKED).run
    test = f"test -c {run}/recipe.yaml --ckpt_path {run}/checkpoints/best.ckpt"
    assert "AutoAttack needs the extra: pip install 'lightning-recipes[attacks]'" in recipes(test).error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model.attack.eps -1", "eps must be at least 0, and finite, but is -1"),
        ("--model.attack.norm l1", "model.attack.norm"),
        ("--model.trades_beta -1", "trades_beta must be at least 0"),
        ("--model.batch_norm dual", "batch_norm dual is for training on natural and attacked images"),
        ("--trainer.callbacks.images 0", "images must be positive but is 0"),
        ("--model.attak.eps 1", "attak"),
    ],
)
def test_wrong_options_are_refused_before_training(recipes, options, message):
    result = recipes(f"{ATTACKED} {options}")
    assert result.code == 2
    assert message in result.error


def test_help_lists_the_options_of_both_classes(recipes):
    result = recipes("fit --model.help AdversarialClassification")
    assert result.code in (0, None)
    for option in ("trades_beta", "eval_attack", "mixup", "lr_interval", "network_args"):
        assert f"--model.init_args.{option}" in result.out or f"--model.{option}" in result.out
