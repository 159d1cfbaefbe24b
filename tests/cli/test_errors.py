"""What the user gave cannot be used: one short message with the thing, the place and the way out, and no trace."""

import logging

import pytest
from lightning.pytorch import LightningModule
from lightning_recipes.recipes.cli import main

pytestmark = pytest.mark.usefixtures("nothing_left")

MODEL = """\
model:
  class_path: Classification
  init_args:
    network: convnet
"""
DATA = "data: Digits\n"


@pytest.fixture
def in_file(recipes, tmp_path):
    """Fits a recipe with this content, called my.yaml."""

    def fit(content, *more):
        file = tmp_path / "my.yaml"
        file.write_text(content) if isinstance(content, str) else file.write_bytes(content)
        result = recipes(f"fit -c {file}", *more)
        assert result.code == 2
        return result.error.replace(f"{tmp_path}/", "")

    return fit


IN_FILE = {
    "argument": (
        MODEL + "    netwrk_args: {depth: 1}\n" + DATA,
        "model: Classification has no option netwrk_args (in my.yaml, line 5); did you mean network_args",
    ),
    "class": (
        MODEL.replace("Classi", "Clasi") + DATA,
        "model: there is no class Clasification (in my.yaml, line 2); did you mean Classification,",
    ),
    "optimizer argument": (
        MODEL + "    optimizer:\n      class_path: SGD\n      init_args: {lrr: 0.1}\n" + DATA,
        "model.optimizer: SGD has no option lrr (in my.yaml, line 7); did you mean lr?",
    ),
    "optimizer class": (
        MODEL + "    optimizer:\n      class_path: SGDD\n" + DATA,
        "model.optimizer: there is no class SGDD (in my.yaml, line 6); did you mean SGD",
    ),
    "optimizer value": (
        MODEL + "    optimizer:\n      class_path: SGD\n      init_args: {lr: fast}\n" + DATA,
        "model.optimizer.lr: expected float but got fast (in my.yaml, line 7)",
    ),
    "trainer key": (
        MODEL + DATA + "trainer:\n  max_epoch: 3\n",
        "unknown option trainer.max_epoch (in my.yaml, line 7); did you mean trainer.max_epochs",
    ),
    "callback argument": (
        MODEL + DATA + "trainer:\n  callbacks+:\n  - class_path: EarlyStopping\n    init_args: {monitr: val/loss}\n",
        "trainer.callbacks: EarlyStopping has no option monitr (in my.yaml, line 9); did you mean monitor?",
    ),
    "callback class": (
        MODEL + DATA + "trainer:\n  callbacks:\n  - EarlyStoping\n",
        "trainer.callbacks: there is no class EarlyStoping (in my.yaml, line 8); did you mean EarlyStopping?",
    ),
    "callback without its argument": (
        MODEL + DATA + "trainer:\n  callbacks+:\n  - class_path: EarlyStopping\n",
        "trainer.callbacks: EarlyStopping needs monitor (in my.yaml, line 8)",
    ),
    "literal": (
        MODEL + "    lr_interval: epochs\n" + DATA,
        "model.lr_interval: expected epoch or step but got epochs (in my.yaml, line 5)",
    ),
    "type": (
        MODEL + DATA + "trainer:\n  max_epochs: many\n",
        "trainer.max_epochs: expected int but got many (in my.yaml, line 7)",
    ),
    "section": (
        MODEL.replace("model", "modell") + DATA,
        "unknown option modell (in my.yaml, line 1); did you mean model?",
    ),
    "beside class_path": (
        MODEL + "  compile: true\n" + DATA,
        "model: compile must stand under init_args (in my.yaml, line 5)",
    ),
    "same word where it is right": (
        "data:\n  class_path: Digits\n  init_args: {batch_size: 8}\n" + MODEL + "    batch_size: 8\n",
        "model: Classification has no option batch_size (in my.yaml, line 8)",
    ),
    "syntax": ("model: [\n", "my.yaml, line 2 is not valid YAML"),
    "tab": ("trainer:\n  max_epochs: 1\n\tfoo: 2\n", "my.yaml, line 3 is not valid YAML"),
    "empty": ("", "my.yaml must hold keys such as model, data and trainer but is empty"),
    "list": ("- 1\n", "my.yaml must hold keys such as model, data and trainer but holds a list"),
    "not utf-8": (b"\xff\xfe\x00model", "my.yaml is not valid YAML: 'utf-8' codec can't decode"),
    "include": ("config: other.yaml\n" + MODEL, "my.yaml includes another file by the key `config`: give several -c"),
    "network": (MODEL.replace("convnet", "convnt") + DATA, "there is no network 'convnt'; did you mean convnet"),
    "network argument": (MODEL + "    network_args: {depht: 1}\n" + DATA, "network_args: convnet has no argument"),
}


@pytest.mark.parametrize("case", IN_FILE)
def test_in_a_file(in_file, case):
    content, expected = IN_FILE[case]
    assert expected in in_file(content)


ON_THE_LINE = {
    "--trainer.max_epoch 1": "unknown option trainer.max_epoch; did you mean trainer.max_epochs",
    "--trainr.max_epochs 1": "unknown option trainr; did you mean trainer?",
    "--max_epochs 1": "unknown option max_epochs; did you mean trainer.max_epochs?",
    "--mod Classification": "unknown option mod; did you mean model?",
    "surplus": "unknown option surplus",
    "--trainer.max_epochs many": "trainer.max_epochs: expected int but got many",
    "--trainer.max_epochs=": "trainer.max_epochs: expected int but got nothing",
    "--trainer.detect_anomaly": "option --trainer.detect_anomaly needs a value",
    "--data.flip --trainer.max_epochs 1": "option --data.flip needs a value; true turns a switch on",
    "--trainer.precision half": "trainer.precision: expected int, transformer-engine",
    "--trainer.limit_val_batches few": "trainer.limit_val_batches: expected int or float but got few",
    "--trainer.devices two": "`devices` selected with",
    "--trainer.accelerator abacus": "invalid accelerator name: `accelerator='abacus'`. Available names are: ",
    "--trainer.strategy fast": "invalid strategy name: `strategy='fast'`",
    "--trainer.logger Wandb": "trainer.logger: there is no class Wandb; did you mean WandbLogger?",
    "--trainer.callbacks+=EarlyStoping": "there is no class EarlyStoping; did you mean EarlyStopping?",
    "--trainer.callbacks+=EarlyStopping": "trainer.callbacks: EarlyStopping needs monitor",
    "--trainer.callbacks+=InfoBatch --trainer.callbacks.warmup_epochs x": "warmup_epochs: expected int but got x",
    "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitr x": "EarlyStopping has no option monitr; did you",
    "--model Clasification": "model: there is no class Clasification; did you mean Classification,",
    "--model.lr 3": "model: Classification has no option lr",
    "--model.network convnt": "there is no network 'convnt'; did you mean convnet",
    "--model.network_args.depht 1": "convnet has no argument 'depht'",
    "--model.mixup much": "model.mixup: expected float but got much",
    "--model.lr_interval epochs": "model.lr_interval: expected epoch or step but got epochs",
    "--model.optimizer Adamm": "model.optimizer: there is no class Adamm; did you mean Adam",
    "--model.optimizer.lrr 1": "model.optimizer: SGD has no option lrr; did you mean lr?",
    "--model.optimizer.lr fast": "model.optimizer.lr: expected float but got fast",
    "--model.lr_scheduler Cosine": "model.lr_scheduler: there is no class Cosine; did you mean CosineSchedule?",
    "--model.objective.label_smoothing 0.1": "choose a class first, --model.objective CrossEntropy",
    "--data Digit": "data: there is no class Digit; did you mean Digits?",
    "--data.batch_sise 3": "data: Digits has no option batch_sise; did you mean batch_size",
    "--data.batch_size 0": "batch_size must be at least 1 but is 0",
    "--data.val_fraction 0.9999": "val_fraction=0.9999 leaves 0 training images of class '0'",
    "--data CIFAR10 --data.root nowhere": "CIFAR10 not found in nowhere: --data.download true fetches it",
    "--data ImageFolder --data.root nowhere": "no image folder at nowhere: unpack your images there as",
    "--ckpt_path nowhere.ckpt": "ckpt_path nowhere.ckpt is not a file",
    "--model.optimizer.weight_decay -1": "Invalid weight_decay value: -1",
    "--ckpt_path last": "ckpt_path last means nothing before a run",
    "-c": "-c needs the name of a recipe or a file",
    "-c .": ". is a folder: name a file in it",
    "-c digits/infobatch -c infobatch": "the callback InfoBatch is given twice",
    "-c infobatch -c random_subset": "InfoBatch and RandomSubset both choose the training samples: keep one of them",
    "-c infobatch --trainer.callbacks.prune_ratio 1.5": "prune_ratio must be in [0, 1) but is 1.5",
    "--trainer.callbacks.num_groups 3": "choose a class first, --trainer.callbacks+ SeTa",
    "-c infobatch --trainer.max_epochs=-1": "InfoBatch must know when the run ends",
    "-c digits/supervise": "no recipe or file 'digits/supervise'; did you mean digits/supervised",
    "-c nowhere.yaml": "no recipe or file 'nowhere.yaml'; `recipes list` shows what is shipped",
}


@pytest.mark.parametrize("options", ON_THE_LINE)
def test_on_the_line(recipes, options):
    result = recipes(f"fit TINY {options}")
    assert result.code == 2
    assert ON_THE_LINE[options] in result.error
    assert "(in " not in result.error


def test_only_classes_that_can_stand_there_are_meant(recipes):
    class Cosinus(LightningModule):  # of a stranger, imported with something else
        pass

    result = recipes("fit TINY --model.lr_scheduler Cosine")
    assert "did you mean CosineSchedule?" in result.error
    assert Cosinus.__name__ not in result.error


def test_no_recipe(recipes):
    for command in ("fit", "fit -c fast", "test --trainer.max_epochs 1"):
        result = recipes(command)
        assert result.code == 2
        assert "no model was given: name a recipe, e.g. -c digits/supervised" in result.error


def test_the_last_file_that_says_it_is_named(in_file, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("model:\n  init_args:\n    optimizer:\n      init_args:\n        lr: fast\n")
    assert "(in other.yaml, line 5)" in in_file(
        MODEL + "    optimizer:\n      class_path: SGD\n      init_args: {lr: 0.1}\n" + DATA, "-c", str(other)
    )


@pytest.mark.parametrize("options", ["--trainer.devices two", "--ckpt_path nowhere.ckpt", "--data.val_fraction 0.9999"])
def test_folder_the_user_had_is_left_alone(recipes, tmp_path, options):
    (tmp_path / "precious").touch()
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path, tmp_path / "empty"):
        assert recipes(f"fit TINY --run_dir {folder} {options}").code == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "precious"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.lr_scheduler=StepLR"], "model.lr_scheduler: StepLR needs step_size"),
        (["--model.lr_scheduler=ReduceLROnPlateau"], "several classes ReduceLROnPlateau, give one by its full name"),
        (["--name=../elsewhere"], "name ../elsewhere would leave the folder of runs"),
        (["-cema"], "write -c ema, with a space"),
    ],
)
def test_one_line_says_what_to_write_instead(options, message, capsys):
    assert main(["fit", "-c", "digits/supervised", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2


def test_check_goes_on_after_a_name_it_does_not_know(capsys):
    assert main(["check", "nowhere", "digits/supervised"]) == 2
    out = capsys.readouterr().out
    assert "nowhere: 1 problem" in out
    assert "digits/supervised: ok" in out


def test_attempts_to_reach_a_host_are_not_printed_one_by_one(recipes):
    recipes("fit TINY --trainer.fast_dev_run 1")
    assert not logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING)
