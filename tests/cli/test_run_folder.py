"""One folder for each run, nothing outside it, and a recipe.yaml in it that runs again."""

import time
from pathlib import Path

import pytest
import torch
import yaml
from lightning_recipes.recipes import Classification
from lightning_recipes.recipes.cli.run_folder import RunFolder

LOGGERS = {
    "default": "",
    "none": "--trainer.logger false",
    "wandb": "--trainer.logger WandbLogger --trainer.logger.project p",
    "wandb overlay": "-c wandb",
    "tensorboard": "--trainer.logger TensorBoardLogger --trainer.logger.save_dir .",
    "two": "--trainer.logger+=CSVLogger --trainer.logger.save_dir . --trainer.logger+=WandbLogger",
}


def files(folder="."):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def weights(run):
    return torch.load(run / "checkpoints/last.ckpt")["state_dict"]


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("logger", LOGGERS)
def test_recipe_is_saved_and_nothing_written_elsewhere(recipes, logger):
    if logger == "tensorboard":
        pytest.importorskip("tensorboard")
    result = recipes(f"fit TINY {LOGGERS[logger]}")
    assert result.code == 0, result.err
    assert (result.run / "recipe.yaml").is_file()
    assert all(file.is_relative_to(result.run) for file in files()), files()
    assert (logger == "none") != bool(list(result.run.rglob("metrics.csv")))
    assert bool(list(result.run.glob("wandb/offline-run-*"))) == ("wandb" in LOGGERS[logger].lower())
    text = (result.run / "recipe.yaml").read_text()
    text = text[text.index("# Complete") :]
    assert text.startswith("# Complete recipe of one run, which was: recipes fit -c digits/supervised ")
    again = recipes(f"fit -c {result.run}/recipe.yaml")
    assert again.code == 0, again.err
    assert again.run.parent == result.run.parent
    assert again.run != result.run
    assert all(file.is_relative_to(again.run) or file.is_relative_to(result.run) for file in files())


def test_saved_recipe_gives_the_same_weights(recipes):
    first = recipes("fit TINY --trainer.max_epochs 2 --model.mixup 0.2 --data.flip true --seed_everything 7")
    again = recipes(f"fit -c {first.run}/recipe.yaml")
    assert_equal(weights(first.run), weights(again.run))
    other = recipes(f"fit -c {first.run}/recipe.yaml --seed_everything 8")
    assert not torch.equal(*(next(iter(weights(run.run).values())) for run in (first, other)))
    assert recipe(again.run) == recipe(first.run)


def recipe(run):
    return yaml.safe_load((run / "recipe.yaml").read_text())


def test_saved_recipe_takes_overrides_and_doubles_no_callback(recipes):
    first = recipes("fit TINY -c ema")
    assert first.code == 0
    assert [c["class_path"].rpartition(".")[2] for c in recipe(first.run)["trainer"]["callbacks"]] == [
        "EMAWeightAveraging"
    ]
    again = recipes(f"fit -c {first.run}/recipe.yaml --model.optimizer.lr 0.05 --trainer.max_epochs 2")
    assert again.code == 0, again.err
    changed = recipe(again.run)
    assert changed["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.05
    assert changed["trainer"]["callbacks"] == recipe(first.run)["trainer"]["callbacks"]
    assert changed["trainer"].pop("max_epochs") == 2
    assert recipe(first.run)["trainer"].pop("max_epochs") == 1


@pytest.mark.parametrize("options", ["-c debug", "--trainer.fast_dev_run true", "--trainer.fast_dev_run 1 -c wandb"])
def test_fast_dev_run_writes_nothing(recipes, options):
    result = recipes(f"fit TINY {options}")
    assert result.code == 0, result.err
    assert files() == []
    assert list(Path.cwd().iterdir()) == []


def test_two_runs_in_one_second_get_two_folders(recipes, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "now")
    runs = [recipes("fit TINY --trainer.limit_train_batches 1").run for _ in range(3)]
    assert runs == [Path("runs/digits/supervised") / name for name in ("now", "now_2", "now_3")]


def test_two_processes_that_choose_the_same_folder_get_two(monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "now")
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "now" and exists(path))
    chosen = [RunFolder("fit", name="a") for _ in range(3)]
    assert [folder.path.name for folder in chosen] == ["now", "now_2", "now_3"]


def test_a_folder_is_one_commands_until_it_ends(recipes):
    first = RunFolder("fit", name="a", exact="mine")
    for options in ("", "--resume"):
        refused = recipes(f"fit TINY --run_dir mine {options}")
        assert refused.code == 2
        assert "run_dir mine is being written to by another command" in refused.error
    first.close(started=False)
    assert not Path("mine").exists()
    assert recipes("fit TINY --run_dir mine").code == 0


REFUSED_IN_SETUP = "fit -c digits/datadam --model.images_per_class 500 --run_dir here"


@pytest.mark.parametrize("is_there", [False, True])
def test_a_run_refused_while_it_is_set_up_leaves_nothing(recipes, is_there):
    if is_there:
        Path("here").mkdir()
    refused = recipes(REFUSED_IN_SETUP)
    assert refused.code == 2
    assert "images_per_class" in refused.error
    assert list(Path.cwd().rglob("*")) == ([Path.cwd() / "here"] if is_there else [])


def test_run_dir_is_taken_as_given_once(recipes, tmp_path):
    result = recipes(f"fit TINY --run_dir {tmp_path}/mine")
    assert result.run == tmp_path / "mine"
    before = {file: file.read_bytes() for file in files(tmp_path)}
    again = recipes(f"fit TINY --run_dir {tmp_path}/mine")
    assert again.code == 2
    assert f"run_dir {tmp_path}/mine holds a run already" in again.error
    assert {file: file.read_bytes() for file in files(tmp_path)} == before
    assert list(Path.cwd().iterdir()) == []


def test_root_and_name_of_runs(recipes, tmp_path):
    result = recipes(f"fit TINY --trainer.default_root_dir {tmp_path}/all --name study/one")
    assert result.run.parent == tmp_path / "all/study/one"
    assert all(file.is_relative_to(result.run) for file in files(tmp_path))
    again = recipes(f"fit -c {result.run}/recipe.yaml")
    assert again.run.parent == result.run.parent


@pytest.mark.parametrize("options", ["--run_dir file/run", "--trainer.default_root_dir file"])
def test_run_folder_that_cannot_be_written(recipes, options):
    Path("file").touch()
    result = recipes(f"fit TINY {options}")
    assert result.code == 2
    assert "cannot write to the run folder file/" in result.error
    assert "name another with --run_dir" in result.error
    assert [path.name for path in Path.cwd().iterdir()] == ["file"]


def test_run_that_starts_and_fails_keeps_its_folder(recipes):
    result = recipes("fit TINY --model.optimizer.lr 1e30 --trainer.max_epochs 2")
    assert result.code == 1
    assert any(file.name == "recipe.yaml" for file in files())


LONG = "--trainer.max_epochs 3"


@pytest.fixture
def killed(recipes, monkeypatch):
    """Runs a command that dies before step 7 of 15, in the second epoch, as by a kill."""
    step = Classification.training_step

    def dies(model, *arguments):
        if model.global_step == 7:
            raise RuntimeError("killed")
        return step(model, *arguments)

    def kill(command):
        with monkeypatch.context() as patch:
            patch.setattr(Classification, "training_step", dies)
            with pytest.raises(RuntimeError, match="killed"):
                recipes(command)

    return kill


@pytest.mark.parametrize("logger", ["", "-c wandb"])
def test_resume_gives_the_run_that_was_not_killed(recipes, killed, logger):
    whole = recipes(f"fit TINY {LONG} {logger} --run_dir whole")
    command = f"fit TINY {LONG} {logger} --run_dir mine --resume"
    killed(command)
    again = recipes(command)
    assert again.code == 0, again.err
    assert "going on from mine/checkpoints/last.ckpt" in again.err
    assert_equal(weights(Path("mine")), weights(Path("whole")))
    assert (again.run / "metrics.csv").read_text() == (whole.run / "metrics.csv").read_text()
    if logger:
        first, *others = [path.name.split("-")[3] for path in Path("mine").glob("wandb/offline-run-*")]
        assert others == [first]
    assert recipe(Path("mine")) == recipe(Path("whole"))


def test_resume_writes_the_last_checkpoint_that_a_kill_prevented(recipes):
    command = f"fit TINY {LONG} --run_dir mine --resume"
    recipes(command)
    best, last = (Path("mine/checkpoints") / name for name in ("best.ckpt", "last.ckpt"))
    assert torch.load(best)["global_step"] == 15  # the best epoch is the last one
    last.unlink()
    assert recipes(command).code == 0
    assert torch.load(last)["global_step"] == 15


def test_resume_of_a_run_that_is_over_does_nothing(recipes):
    command = f"fit TINY {LONG} --run_dir mine --resume"
    assert recipes(command).code == 0
    before = {file: file.read_bytes() for file in files("mine")}
    again = recipes(command)
    assert again.code == 0
    assert "no step was left to train: give a larger --trainer.max_epochs" in again.err
    assert {file: file.read_bytes() for file in files("mine")} == before


def test_resume_passes_over_a_checkpoint_that_cannot_be_read(recipes, killed):
    recipes(f"fit TINY {LONG} --run_dir whole")
    killed(f"fit TINY {LONG} --run_dir mine")
    Path("mine/checkpoints/broken.ckpt").write_bytes(b"PK")
    again = recipes(f"fit TINY {LONG} --run_dir mine --resume")
    assert again.code == 0, again.err
    assert any("mine/checkpoints/broken.ckpt cannot be gone on from" in text for text in again.warnings)
    assert_equal(weights(Path("mine")), weights(Path("whole")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--resume", "--resume goes on in the folder of a run: name it with --run_dir"),
        ("--resume --run_dir a --ckpt_path b.ckpt", "--resume takes the newest checkpoint of run_dir"),
        ("--run_dir run", "go on with that run by --resume"),
    ],
)
def test_resume_that_cannot_be_meant(recipes, options, message):
    recipes("fit TINY --run_dir run")
    refused = recipes(f"fit TINY {options}")
    assert refused.code == 2
    assert message in refused.error
