"""Several `-c`, by any name, merged left to right."""

import itertools
import shlex
import warnings
from pathlib import Path

import pytest
import yaml
from lightning_recipes.recipes.cli import catalog, trainer_cli
from lightning_recipes.recipes.cli.parsing import recipe_files


@pytest.fixture
def resolved(recipes):
    """The complete recipe that some options give."""

    def resolve(options):
        result = recipes(f"fit {options} --trainer.limit_train_batches 1 --trainer.limit_val_batches 0 --run_dir out")
        assert result.code == 0, result.err
        content = yaml.safe_load(Path("out/recipe.yaml").read_text())
        Path("out").rename(f"out{len(list(Path.cwd().iterdir()))}")
        return content

    return resolve


@pytest.fixture
def parsed(monkeypatch):
    """The options of a run, parsed only."""
    monkeypatch.setattr(trainer_cli.RecipesCLI, "instantiate_classes", lambda self: None)
    return lambda options: trainer_cli.RecipesCLI(*recipe_files.resolve(["fit", *shlex.split(options)])).settings


def test_a_name_goes_with_or_without_its_ending_and_a_file_may_be_anywhere(resolved, recipes, tmp_path):
    recipes(f"copy digits/supervised {tmp_path}/my.yaml")
    shipped = resolved("-c digits/supervised -c fast")
    assert resolved("-c digits/supervised.yaml --config fast.yaml") == shipped
    assert resolved("--config=digits/supervised -c=fast") == shipped
    for name in ("my.yaml", "../my.yaml"):
        (tmp_path / "here").mkdir(exist_ok=True)
        mine = resolved(f"-c {tmp_path}/here/../{name.removeprefix('../')} -c fast")
        assert mine == {**shipped, "name": "my+fast"}


def test_files_merge_left_to_right_and_the_line_wins(resolved):
    Path("a.yaml").write_text("trainer: {max_epochs: 2}\nmodel: {init_args: {mixup: 0.1}}\n")
    Path("b.yaml").write_text("trainer: {max_epochs: 3}\ndata: {init_args: {batch_size: 32}}\n")
    content = resolved("-c digits/supervised -c a.yaml -c b.yaml")
    assert content["trainer"]["max_epochs"] == 3
    assert content["model"]["init_args"]["mixup"] == 0.1
    assert content["model"]["init_args"]["network_args"] == {"depth": 2, "width": 32}
    assert content["data"]["init_args"]["batch_size"] == 32
    assert content["name"] == "digits/supervised+a+b"
    assert resolved("-c digits/supervised -c b.yaml -c a.yaml")["trainer"]["max_epochs"] == 2
    for options in (
        "-c digits/supervised -c b.yaml --trainer.max_epochs 4",
        "--trainer.max_epochs 4 -c digits/supervised -c b.yaml",
    ):
        assert resolved(options)["trainer"]["max_epochs"] == 4


def test_overlays_append_callbacks(resolved):
    Path("stop.yaml").write_text(
        "trainer:\n  callbacks+:\n  - class_path: EarlyStopping\n    init_args: {monitor: train/loss}\n"
    )
    content = resolved("-c digits/supervised -c ema -c stop.yaml --trainer.callbacks+=RichModelSummary")
    names = [callback["class_path"].rpartition(".")[2] for callback in content["trainer"]["callbacks"]]
    assert names == ["EMAWeightAveraging", "EarlyStopping", "RichModelSummary"]


def test_overlay_that_appends_must_follow_the_recipe(recipes, nothing_left):
    result = recipes("fit -c ema -c digits/supervised")
    assert result.code == 2
    assert "-c ema adds to what comes before it" in result.error
    assert "-c digits/supervised -c ema" in result.error


def test_overlay_of_the_model_may_follow_one_that_appends(resolved):
    assert resolved("-c digits/supervised -c ema -c bf16")["trainer"]["precision"] == "bf16-mixed"
    Path("mix.yaml").write_text("model: {init_args: {mixup: 0.2}}\n")
    assert resolved("-c digits/supervised -c ema -c mix.yaml")["model"]["init_args"]["mixup"] == 0.2


def test_file_of_the_name_of_a_shipped_recipe_wins(resolved):
    Path("fast").write_text("trainer: {max_epochs: 7}\n")
    assert resolved("-c digits/supervised -c fast")["trainer"]["max_epochs"] == 7


@pytest.fixture
def lists():
    """The classes that each shipped overlay brings to a list."""
    lists = {}
    for name in catalog.names("overlays"):
        trainer = yaml.safe_load(catalog.find(name).read_text()).get("trainer") or {}
        assert not {"callbacks", "logger"} & trainer.keys(), f"{name} replaces a list: write `+` after the key"
        found = [item["class_path"] for key in ("callbacks+", "logger+") for item in trainer.get(key, [])]
        if found:
            lists[name] = set(found)
    assert len(lists) >= 10
    return lists


def classes(settings):
    items = [*(settings.trainer.callbacks or []), *(settings.trainer.logger or [])]
    return {item.class_path.rpartition(".")[2] for item in items}


def test_callbacks_and_loggers_of_all_overlays_add_up(parsed, lists):
    for order in (sorted(lists), sorted(lists, reverse=True)):
        settings = parsed("-c digits/supervised -c " + " -c ".join(order))
        assert classes(settings) == set().union(*lists.values())


@pytest.mark.slow
def test_callbacks_and_loggers_of_each_pair_of_overlays_add_up(parsed, lists):
    for first, second in itertools.permutations(lists, 2):
        assert classes(parsed(f"-c digits/supervised -c {first} -c {second}")) == lists[first] | lists[second]


def prune_ratio_and_decay(settings):
    arguments = {item.class_path.rpartition(".")[2]: item.init_args for item in settings.trainer.callbacks}
    return arguments["InfoBatch"].prune_ratio, arguments["EMAWeightAveraging"].decay


@pytest.mark.parametrize(
    "options",
    [
        "-c digits/infobatch -c ema --trainer.callbacks.InfoBatch.prune_ratio 0.7 --trainer.callbacks.decay 0.9",
        "--trainer.callbacks.InfoBatch.prune_ratio=7e-1 -c digits/supervised -c infobatch -c ema"
        " --trainer.callbacks.EMAWeightAveraging.decay 0.9",
        "-c digits/infobatch -c dotted.json --trainer.callbacks+ EMAWeightAveraging --trainer.callbacks.decay 0.9",
        "-c digits/supervised -c infobatch -c last.json -c ema -c nested.yaml",
    ],
)
def test_option_of_a_callback_by_its_class(parsed, options):
    Path("dotted.json").write_text('{"trainer.callbacks.InfoBatch.prune_ratio": 0.7}')
    Path("last.json").write_text('{"trainer.callbacks.prune_ratio": 0.7}')
    Path("nested.yaml").write_text("trainer: {callbacks: {EMAWeightAveraging: {decay: 0.9}}}")
    assert prune_ratio_and_decay(parsed(options)) == (0.7, 0.9)


def test_option_of_a_logger_by_its_class(parsed):
    trainer = parsed(
        "-c digits/supervised -c wandb -c tensorboard --trainer.logger.WandbLogger.project p"
        " --trainer.logger.TensorBoardLogger.name t"
    ).trainer
    assert [
        (logger.class_path.rpartition(".")[2], logger.init_args.get("project"), logger.init_args.name)
        for logger in trainer.logger
    ] == [
        ("WandbLogger", "p", None),
        ("TensorBoardLogger", None, "t"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--trainer.callbacks.InfoBatch.prune_ratio 0.7", "has no callback InfoBatch (callbacks: none)"),
        ("-c infobatch --trainer.callbacks.InfoBatch.prune_ration 0.7", "InfoBatch has no option prune_ration"),
        ("-c infobatch --trainer.callbacks.InfoBatch.prune_ratio much", "much"),
    ],
)
def test_wrong_option_of_a_callback_by_its_class(recipes, nothing_left, options, message):
    result = recipes(f"fit TINY {options}")
    assert result.code == 2
    assert message in result.error


def test_a_list_that_replaces_another_is_named(parsed):
    Path("mine.yaml").write_text("trainer: {callbacks: [{class_path: RichModelSummary}]}")
    with pytest.warns(
        UserWarning, match="mine.yaml replaces the callbacks of digits/infobatch and ema, InfoBatch, EMA"
    ):
        parsed("-c digits/infobatch -c ema -c mine.yaml")
    with pytest.warns(UserWarning, match="--trainer.logger replaces the logger of wandb, WandbLogger: write"):
        parsed("-c digits/supervised -c wandb --trainer.logger TensorBoardLogger --trainer.logger.save_dir .")


def test_dotted_keys_of_a_file_are_options(parsed):
    Path("sweep.json").write_text('{"model.optimizer.lr": 1e-2, "trainer.max_epochs": 3, "model.optimizer": "Adam"}')
    settings = parsed("-c digits/supervised -c sweep.json --trainer.max_epochs 4")
    assert settings.model.init_args.optimizer.class_path == "torch.optim.Adam"
    assert settings.model.init_args.optimizer.init_args.lr == 0.01
    assert settings.trainer.max_epochs == 4


CHANGED = {
    "-c digits/supervised --model.optimizer AdamW": (
        "model.optimizer AdamW replaces SGD of digits/supervised: it keeps lr 0.1 (its own: 0.001), weight_decay 0.0005"
        " (its own: 0.01) and leaves out momentum 0.9, nesterov True"
    ),
    "-c digits/supervised --model.optimizer AdamW --model.optimizer.lr 0.001 --model.optimizer.weight_decay=0.01": (
        "model.optimizer AdamW replaces SGD of digits/supervised: it leaves out momentum 0.9, nesterov True"
    ),
    "-c digits/kd --model.objective.loss DIST": (
        "model.objective.loss DIST replaces KD of digits/kd: it keeps temperature 4 (its own: 1)"
    ),
    "-c digits/supervised -c adam.yaml": (
        "model.optimizer Adam replaces SGD of digits/supervised: it keeps weight_decay 0.0005 (its own: 0) and"
        " leaves out momentum 0.9, nesterov True"
    ),
}


@pytest.mark.parametrize("options", CHANGED)
def test_a_changed_class_says_which_values_it_keeps(parsed, options):
    Path("adam.yaml").write_text(
        "model: {init_args: {optimizer: {class_path: torch.optim.Adam, init_args: {lr: 1e-3}}}}"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parsed(options)
    assert CHANGED[options] in [str(warning.message) for warning in caught]


def test_nothing_is_said_of_a_class_that_stays(parsed, recwarn):
    parsed("-c digits/kd --model.optimizer SGD --model.optimizer.lr 0.2")
    assert not [str(warning.message) for warning in recwarn if "replaces" in str(warning.message)]
