"""Commands that need no torch: content, exit codes, and how long they take."""

import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from lightning_recipes.recipes.cli import catalog

RECIPES = str(Path(sys.executable).with_name("recipes"))
FRONT = ["list", "show digits/supervised", "copy digits/supervised mine.yaml", "--help", "--version"]


def test_list_shows_every_recipe_and_overlay_with_what_its_head_says(recipes, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    result = recipes("list")
    assert result.code == 0
    lines = result.out.splitlines()
    for name in catalog.names():
        (row,) = [line for line in lines if line.split()[:1] == [name]]
        header = catalog.describe(name).header
        # Piped, a row is one line, whatever its length.
        assert all(header[key] in row for key in ("technique", "expect", "time", "paper")), row
    for name in catalog.names("overlays"):
        assert any(line.split()[:1] == [name] for line in lines)


def test_list_fits_a_terminal_of_80_columns(recipes, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = recipes("list").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 2 * len(catalog.names()) + len(catalog.names("overlays")) + 2
    for name in [*catalog.names(), *catalog.names("overlays")]:
        assert [line for line in lines if line.split()[:1] == [name]], name


def test_list_shows_the_recipes_with_a_word(recipes):
    names = [line.split()[0] for line in recipes("list InfoBatch").out.splitlines() if line]
    assert {"digits/infobatch", "cifar10/infobatch", "infobatch"} <= set(names)
    assert "digits/kd" not in names
    result = recipes("list nosuchthing")
    assert result.code == 2
    assert "no recipe or overlay has 'nosuchthing'" in result.error


LISTED = {
    "callbacks": "InfoBatch",
    "losses": "DIST",
    "objectives": "Distillation",
    "heads": "AugLocal",
    "datamodules": "Digits",
    "networks": "convnet",
    "matchings": "DataDAM",
    "models": "Classification",
    "optimizers": "SGD",
    "schedules": "CosineSchedule",
}


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_list_shows_classes_with_the_first_line_of_their_docstring(recipes, kind):
    lines = recipes(f"list {kind}").out.splitlines()
    (row,) = [line.split(maxsplit=1) for line in lines if line.split()[0] == LISTED[kind]]
    assert len(row[1]) > 10


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("model", "LocalLearning"),
        ("model.objective.loss", "DIST"),
        ("trainer.callbacks", "InfoBatch"),
        ("data", "SVHN"),
    ],
)
def test_help_of_an_option_without_a_class_lists_the_classes(recipes, option, name):
    result = recipes(f"fit -c digits/kd --{option}.help")
    assert result.code == 0
    assert [line for line in result.out.splitlines() if line.split()[0] == name]


def test_forgotten_c_before_a_recipe(recipes):
    for command in ("fit digits/supervised", "fit -c digits/supervised ema", "fit my.yaml --name x"):
        result = recipes(command)
        assert result.code == 2
        assert "write -c before the name of a recipe: recipes fit -c " in result.error


def test_a_reader_that_stops_early_is_no_error():
    """As of `recipes list | head -1`."""
    done = subprocess.run(f"{RECIPES} list | head -1", shell=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_show_prints_the_file(recipes):
    result = recipes("show digits/supervised")
    assert result.code == 0
    assert result.out == catalog.find("digits/supervised").read_text()
    assert recipes("show ema").out == catalog.find("ema").read_text()


def test_unknown_name_suggests_near_ones(recipes):
    result = recipes("show digits/supervise")
    assert result.code == 2
    assert "digits/supervised" in result.error
    assert recipes("show ../pyproject").code == 2


def test_copy_writes_to_a_file_or_folder_and_never_overwrites(recipes):
    assert recipes("copy digits/supervised mine.yaml").out == "mine.yaml\n"
    assert recipes("copy digits/supervised new/folder/").out == "new/folder/supervised.yaml\n"
    assert recipes("copy ema .").out == "ema.yaml\n"
    assert yaml.safe_load(Path("mine.yaml").read_text())["data"]["class_path"] == "Digits"
    Path("mine.yaml").write_text("precious")
    result = recipes("copy digits/supervised mine.yaml")
    assert result.code == 2
    assert "mine.yaml exists already" in result.error
    assert Path("mine.yaml").read_text() == "precious"


def test_copy_below_a_file_is_an_error(recipes):
    Path("file").touch()
    result = recipes("copy digits/supervised file/mine.yaml")
    assert result.code == 2
    assert "cannot write file/mine.yaml" in result.error


def test_version_and_help(recipes):
    assert recipes("--version").out == f"lightning-recipes {version('lightning-recipes')}\n"
    result = recipes("--help")
    assert result.code == 0
    for command in ("list", "show", "copy", "check", "fit", "validate", "test", "predict", "export", "temperatures"):
        assert f"    {command}" in result.out


@pytest.mark.parametrize("command", ["", "fot", "show", "copy digits/supervised", "list --verbose", "--vers"])
def test_wrong_use_of_the_front_exits_with_2_and_says_what_is_possible(recipes, command):
    result = recipes(command)
    assert result.code == 2
    assert "usage: recipes" in result.err


@pytest.mark.parametrize("command", FRONT)
def test_front_is_fast_and_does_not_import_torch(command):
    code = (
        "import sys; from lightning_recipes.recipes.cli import main\n"
        f"try: main({command.split()})\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'lightning', 'timm', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    def cpu_seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        Path("mine.yaml").unlink(missing_ok=True)
        subprocess.run([RECIPES, *command.split()], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # The best of three: CPU seconds too grow on a machine that others use.
    assert min(cpu_seconds() for _ in range(3)) < 0.3
