"""Adversarial training from the command line, up to AutoAttack."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch

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


def best(run):
    """Epoch and score of the best checkpoint, and the robust accuracies that the run logged."""
    with (run / "metrics.csv").open() as file:
        logged = [row["val/robust_accuracy"] for row in csv.DictReader(file)]
    checkpoint = torch.load(run / "checkpoints/best.ckpt", weights_only=False)
    state = next(value for name, value in checkpoint["callbacks"].items() if name.startswith("BestAndLast"))
    assert state["monitor"] == "val/robust_accuracy"
    return checkpoint["epoch"], float(state["best_model_score"]), [float(value) for value in logged if value]


def test_the_best_checkpoint_has_the_highest_robust_accuracy_also_over_a_resume(recipes):
    """The rate rises until training diverges, so the best epoch is not the last."""
    line = (
        f"{ATTACKED} --data.subset 24 --data.val_fraction 0.3 --model.eval_steps 5 --model.optimizer.lr 20"
        " --model.lr_scheduler OneCycleSchedule --model.lr_scheduler.peak 0.9 --model.lr_scheduler.start_divisor 1000"
    )
    first = recipes(f"{line} --trainer.max_epochs 4").run
    epoch, score, logged = best(first)
    assert len(logged) == 4
    assert (epoch, score) == (logged.index(max(logged)), pytest.approx(max(logged)))
    assert epoch < 3
    resumed = recipes(
        f"fit -c {first}/recipe.yaml --trainer.max_epochs 6 --ckpt_path {first}/checkpoints/last.ckpt"
    ).run
    assert resumed != first
    epoch, score, after = best(resumed)
    assert len(after) == 2
    # The best epoch before the resume counts, and its checkpoint came along.
    everything = logged + after
    assert (epoch, score) == (everything.index(max(everything)), pytest.approx(max(everything)))


def test_the_attack_is_chosen_on_the_line_and_knows_the_data(recipes):
    pytest.importorskip("pyautoattack")
    options = "--model.attack.norm l2 --model.attack.eps 0.5 --model.attack.step_size 0.3 --model.eval_steps 3"
    result = recipes(f"{ATTACKED} {options} --trainer.callbacks.images 10")
    assert result.code == 0, result.err
    tested = recipes(f"test -c {result.run}/recipe.yaml --ckpt_path {result.run}/checkpoints/best.ckpt")
    assert "AutoAttack, l2, eps 0.5000, on 10 test images" in tested.out


def test_an_attack_too_short_for_its_ball_is_warned_of(recipes):
    result = recipes(f"{ATTACKED} --model.attack.eps 0.5")
    assert any("do not reach attack.eps 0.5: the attack is a weak one" in text for text in result.warnings)


def test_autoattack_is_given_once(recipes):
    pytest.importorskip("pyautoattack")
    run = recipes(ATTACKED).run
    options = f"-c {run}/recipe.yaml -c autoattack --ckpt_path {run}/checkpoints/best.ckpt"
    assert "the callback AutoAttack is given twice" in recipes(f"test {options}").error


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
        ("--model.eval_steps 0", "eval_steps must be at least 1 but is 0"),
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
    for option in ("trades_beta", "eval_steps", "mixup", "lr_interval", "network_args"):
        assert f"--model.init_args.{option}" in result.out or f"--model.{option}" in result.out
