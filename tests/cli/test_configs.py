"""Several `-c`, by any name, merged left to right."""

from pathlib import Path

import pytest
import yaml


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
