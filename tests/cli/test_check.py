"""`recipes check` reports every problem of every file, and the shipped ones have none."""

import re
from pathlib import Path

import pytest
from lightning.pytorch.trainer.connectors.logger_connector import logger_connector
from lightning_recipes.recipes.cli import catalog

pytestmark = pytest.mark.usefixtures("nothing_left")

FAULTY = """\
model:
  class_path: Clasification
  init_args:
    network: convnet
    netwrk_args: {depth: 1}
    lr_interval: epochs
    optimizer:
      class_path: SGD
      init_args: {lrr: 0.1, momentum: much}
data:
  class_path: Digits
  init_args:
    batch_size: 0
    val_fractoin: 0.5
trainer:
  max_epoch: 3
  callbacks:
  - class_path: EarlyStoping
    init_args: {monitor: val/loss, patiense: 3}
"""


def test_every_problem_of_a_file_is_found_at_once(recipes, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(FAULTY)
    result = recipes(f"check {file} digits/supervised")
    assert result.code == 2
    assert file.read_text() == FAULTY
    heading, *problems, last = result.out.splitlines()
    assert heading == f"{file}: {len(problems)} problems"
    assert last == "digits/supervised: ok"
    found = "\n".join(problems)
    for words, line in {
        "there is no class Clasification": 2,
        "has no option netwrk_args": 5,
        "but got epochs": 6,
        "has no option lrr": 9,
        "but got much": 9,
        "has no option val_fractoin": 14,
        "unknown option trainer.max_epoch": 16,
        "there is no class EarlyStoping": 18,
        "has no option patiense": 19,
    }.items():
        assert found.count(f"{words} (in {file}, line {line})") == 1, (words, found)
    assert "batch_size must be at least 1 but is 0" in found
    assert len(problems) == 10


def test_name_that_is_not_shipped(recipes):
    result = recipes("check nowhere")
    assert result.code == 2
    assert "no recipe or file 'nowhere'" in result.out


@pytest.mark.parametrize("overlay", catalog.names("overlays"))
def test_overlay_is_looked_at_on_top_of_a_recipe(recipes, overlay):
    result = recipes(f"check {overlay}")
    if overlay == "teacher":
        assert result.code == 2
        assert "teacher: 1 problem\n  - teacher runs/teacher/checkpoints/best.ckpt does not exist" in result.out
    else:
        assert (result.code, result.out) == (0, f"{overlay}: ok\n")


def test_data_is_not_needed_to_check_but_a_teacher_is(recipes, monkeypatch):
    monkeypatch.setenv("RECIPES_DATA", str(Path("nowhere")))
    # That each recipe can be built is for the suite of configs.
    names = ["cifar10/supervised", "cifar10/dm", "cifar10/ats", "cifar10_lt/deit_lt"]
    taught = {name for name in names if "teacher:" in catalog.find(name).read_text()}
    result = recipes("check " + " ".join(names))
    assert result.code == 2
    refused = set(
        re.findall(r"^(\S+): 1 problem\n  - teacher runs/teachers/\S+ does not exist", result.out, re.MULTILINE)
    )
    assert refused == taught
    assert set(re.findall(r"^(\S+): ok$", result.out, re.MULTILINE)) == set(names) - taught


def test_nothing_is_said_of_a_logger_that_is_not_installed(recipes, monkeypatch):
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(logger_connector, name, False)
    result = recipes("check digits/supervised")
    assert (result.code, result.err, result.warnings) == (0, "", [])
