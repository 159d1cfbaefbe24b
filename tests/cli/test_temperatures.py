"""`recipes temperatures` looks at a checkpoint and leaves a table, the logits and a plot."""

import csv

import pytest
import safetensors.torch
import torch
from lightning_recipes.modules.temperatures import temperature_grid
from lightning_recipes.recipes import cli_temperatures


@pytest.fixture
def command(recipes):
    """The command for a checkpoint of a run of a second."""
    run = recipes("fit TINY --run_dir teacher").run
    return f"temperatures -c {run}/recipe.yaml --ckpt_path {run}/checkpoints/best.ckpt --run_dir out"


def written(folder):
    with (folder / "temperatures.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("part", "images"), [("train", 80), ("val", 126)])
def test_the_table_is_that_of_the_logits(recipes, command, part, images, tmp_path):
    result = recipes(f"{command} --part {part} --tau_true [1,4] --tau_wrong [1,2]")
    assert result.code == 0, result.err
    assert f"{images} {part} images" in result.out
    folder = cli_temperatures.Path("out")
    saved = safetensors.torch.load_file(folder / "logits.safetensors")
    assert saved["logits"].shape == (images, 10)
    expected = temperature_grid(saved["logits"], saved["labels"], tau_true=[1, 4], tau_wrong=[1, 2])
    assert written(folder) == expected
    # Logits and labels belong together: the network knows some of what it was trained on.
    accuracy = (saved["logits"].argmax(1) == saved["labels"]).float().mean()
    assert accuracy == pytest.approx(1 - expected[0]["wrong"])
    assert accuracy > 0.15
    assert (folder / "temperatures.png").stat().st_size > 10_000


def test_by_default_the_grid_is_the_authors(recipes, command):
    assert recipes(command).code == 0
    pairs = [(row["tau_true"], row["tau_wrong"]) for row in written(cli_temperatures.Path("out"))]
    assert pairs == [(true, wrong) for true in range(1, 7) for wrong in range(1, 6)]


def test_without_matplotlib_it_says_how_to_get_a_plot(recipes, command, monkeypatch):
    monkeypatch.setattr(cli_temperatures, "find_spec", lambda name: None)
    result = recipes(f"{command} --tau_true [4] --tau_wrong [2]")
    assert result.code == 0
    assert "pip install 'lightning-recipes[plots]'" in result.out
    assert not (cli_temperatures.Path("out") / "temperatures.png").exists()


def test_the_logits_serve_global_labels(recipes, command):
    assert recipes(command).code == 0
    result = recipes(
        "fit TINY --model.objective Distillation --model.objective.teacher teacher/checkpoints/best.ckpt"
        " --model.objective.loss GlobalLabels --model.objective.loss.logits out/logits.safetensors"
    )
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--tau_true []", "tau_true must hold positive temperatures"),
        ("--tau_wrong [0]", "tau_wrong must hold positive temperatures"),
        ("--part test", "part: expected"),
        ("--run_dir teacher", "teacher holds a run already"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(recipes, command, options, message):
    result = recipes(f"{command} {options}")
    assert result.code == 2
    assert message in result.error
    assert torch.is_grad_enabled()
