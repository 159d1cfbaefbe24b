"""The folders keep the shape that the documentation promises."""

import ast
import re
import subprocess

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["callbacks", "configs", "datamodules", "modules", "recipes"]

# Who may import whom; `modules.errors` and the rest of `modules` are everybody's.
ALLOWED = {
    "modules": {"modules"},
    "datamodules": {"datamodules", "modules"},
    "callbacks": {"callbacks", "modules"},
    "recipes": {"recipes", "modules"},
    "configs": set(),
}


def sources():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported_packages(path):
    """Our packages that a file imports, relative imports resolved."""
    here = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level]
            target = [*base, *(node.module or "").split(".")]
            # `from .. import callbacks` names the packages themselves.
            yield from [target[0]] if target[0] else [alias.name for alias in node.names]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            yield from (name for name in names if name.startswith("lightning_recipes"))


def test_only_small_files_in_known_folders_are_committed():
    """So that what an experiment left in the folder is not."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    known = {*PACKAGES, ".ci", "benchmarks", "docs", "examples", "results", "tests"}
    assert {path.relative_to(ROOT).parts[0] for path in paths if path.parent != ROOT} <= known
    allowed = {".md", ".toml", ".txt", ""}
    assert {path.name for path in paths if path.parent == ROOT and path.suffix not in allowed} == set()
    assert max(path.stat().st_size for path in paths) < 500_000


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_only_what_they_may(path):
    package = path.relative_to(ROOT).parts[0]
    if path.is_relative_to(ROOT / "recipes" / "cli"):
        return
    assert set(imported_packages(path)) <= ALLOWED[package]


def test_core_stands_on_its_own():
    """It imports no Lightning and no other room of ours."""
    found = [
        f"{path.name}: {line}"
        for path in sorted((ROOT / "modules" / "core").glob("*.py"))
        for line in path.read_text().splitlines()
        if re.match(r"\s*(from|import) (lightning|\.\.)", line)
    ]
    assert not found, found


def test_every_folder_with_python_is_a_listed_package():
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in sources()}
    assert sorted(listed) == sorted("lightning_recipes." + ".".join(folder.parts) for folder in folders)


def recipes():
    return [p for p in sorted((ROOT / "configs").rglob("*.yaml")) if p.parent.name not in ("overlays", "sweeps")]


@pytest.mark.parametrize("path", recipes(), ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_every_recipe_opens_with_what_a_reader_wants_to_know(path):
    from lightning_recipes.recipes.cli.catalog import HEADER_KEYS, describe

    recipe = describe(path.relative_to(ROOT / "configs").with_suffix("").as_posix())
    assert recipe.title.endswith(".") or ":" in recipe.title
    assert set(HEADER_KEYS) <= set(recipe.header)
    assert recipe.header["command"].startswith(f"recipes fit -c {recipe.name}")
    assert recipe.data
    assert recipe.network


@pytest.mark.parametrize("path", recipes(), ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_every_recipe_says_all_of_its_optimizer(path):
    """What a file leaves out is taken from the default optimizer where the two classes share an argument."""
    optimizer = yaml.safe_load(path.read_text())["model"]["init_args"].get("optimizer")
    if optimizer and optimizer["class_path"].endswith(("SGD", "Lars")):
        assert {"lr", "momentum", "weight_decay", "nesterov"} <= set(optimizer["init_args"])


@pytest.mark.parametrize("path", recipes(), ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_every_recipe_has_its_settings_row(path):
    from settings import SETTINGS

    assert path.stem in {setting.name for setting in SETTINGS}


def test_every_settings_row_has_a_recipe_and_one_page_in_a_family_folder():
    from settings import SETTINGS

    techniques = sorted(setting.name for setting in SETTINGS)
    assert set(techniques) <= {path.stem for path in recipes()}
    assert sorted(page.stem for page in technique_pages()) == techniques


def technique_pages():
    """The pages of `docs/<family>/`, without the overview of each family."""
    pages = sorted((ROOT / "docs").glob("*/*.md"))
    return [page for page in pages if page.parent.name != "guide" and page.name != "README.md"]


def test_recipes_hold_plain_yaml_without_includes():
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert "config" not in yaml.safe_load(path.read_text()), path


def test_files_stay_small_enough_to_hold_one_thing():
    assert {str(p.relative_to(ROOT)) for p in sources() if len(p.read_text().splitlines()) > 400} == set()


def test_random_numbers_are_keyed_in_one_place():
    """A seed made elsewhere could be another use's; constants and seeds that are handed on cannot."""
    allowed = r"manual_seed\((0|size|self\._seed\(\)|derived_seed\()"
    found = [
        f"{path}: {line.strip()}"
        for path in sources()
        if path.name != "sampling.py"
        for line in path.read_text().splitlines()
        if re.search(r"SeedSequence|default_rng|RandomState|manual_seed", line) and not re.search(allowed, line)
    ]
    assert not found, found


def test_private_names_of_lightning_stand_in_one_file():
    """A new version of Lightning may change them."""
    private = re.compile(
        r"(trainer|loop|_connector)\._[a-z]|_connector\b|from lightning[\w.]* import .*\b_[A-Za-z]|__pl_|_subcommand\("
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sources()
        if path.name != "lightning_private.py"
        for line in path.read_text().splitlines()
        if private.search(line)
    ]
    assert not found, found
