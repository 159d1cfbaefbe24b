"""The built wheel works outside the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, out = tmp_path_factory.mktemp("source") / "checkout", tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns(".*", "runs", "data", "build", "dist", "wandb", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source)
    return next(out.glob("*.whl"))


def run(*words, **options):
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def check_in(environment: Path, folder: Path):
    """The commands of a newcomer, in a folder that is not the checkout."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    recipes = environment / "bin" / "recipes"
    assert "digits/supervised" in run(recipes, "list", cwd=folder, env=variables)
    shown = run(recipes, "fit", "-c", "digits/supervised", "--trainer.max_epochs", "1", cwd=folder, env=variables)
    assert "To test it:" in shown
    assert [path.name for path in folder.iterdir()] == ["runs"]


def test_the_wheel_holds_the_recipes_and_runs_beside_the_installed_dependencies(wheel, tmp_path):
    environment, folder = tmp_path / "environment", tmp_path / "folder"
    folder.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    # The dependencies, but not the checkout: a .pth file inside a folder named in a .pth file is not read.
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    run(sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "--no-deps", wheel)
    check_in(environment, folder)
    found = run(environment / "bin" / "python", "-c", "import lightning_recipes.recipes.cli as c; print(c.__file__)")
    assert Path(found.strip()).is_relative_to(site)


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment(wheel, tmp_path):
    environment, folder = tmp_path / "environment", tmp_path / "folder"
    folder.mkdir()
    run(sys.executable, "-m", "venv", environment)
    run(environment / "bin" / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    check_in(environment, folder)
