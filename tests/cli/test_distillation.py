"""Distillation from the command line: from a teacher's run to a student that needs it no more."""

import csv

import pytest
import yaml

DISTILLED = "--model.objective Distillation --model.objective.teacher {}"


@pytest.fixture
def teacher(recipes):
    """A checkpoint of a run of a second."""
    result = recipes("fit TINY --run_dir teacher")
    assert result.code == 0, result.err
    return result.run / "checkpoints/best.ckpt"


def test_a_student_of_a_checkpoint_and_of_an_exported_file(recipes, teacher):
    exported = recipes(f"export -c teacher/recipe.yaml --ckpt_path {teacher} --formats+ safetensors")
    assert exported.code == 0, exported.err
    (file,) = teacher.parents[1].rglob("network.safetensors")
    losses = []
    for source in (teacher, file):
        result = recipes(f"fit TINY {DISTILLED.format(source)} --model.objective.loss ATS")
        assert result.code == 0, result.err
        with (result.run / "metrics.csv").open() as rows:
            values = [row["val/kd"] for row in csv.DictReader(rows) if row["val/kd"]]
        losses.append(values)
    assert losses[0] == losses[1]
    assert len(losses[0]) == 1


def test_any_loss_with_its_options(recipes, teacher):
    for options in (
        "LSKD --model.objective.loss.loss DKD --model.objective.loss.loss.beta 2",
        "ISATS --model.objective.loss.tau_wrong_grid [1,2]",
        "AttentionTransfer --model.objective.loss.student_layers [blocks.0] --model.objective.loss.teacher_layers"
        " [blocks.0]",
    ):
        result = recipes(f"fit TINY {DISTILLED.format(teacher)} --model.objective.loss {options}")
        assert result.code == 0, result.err
        again = recipes(f"fit -c {result.run}/recipe.yaml")
        assert again.code == 0, again.err


@pytest.mark.parametrize(
    "loss",
    ["KD", "FitNet --model.objective.loss.student_layers [blocks.0] --model.objective.loss.teacher_layers [blocks.0]"],
)
def test_a_trained_student_outlives_its_teacher(recipes, teacher, loss):
    run = recipes(f"fit TINY {DISTILLED.format(teacher)} --model.objective.loss {loss}").run
    teacher.unlink()
    options = f"-c {run}/recipe.yaml --ckpt_path {run}/checkpoints/best.ckpt"
    assert "a trained student needs none with --model.objective CrossEntropy" in recipes(f"test {options}").error
    for command in (f"test {options}", f"export {options} --formats+ safetensors"):
        result = recipes(f"{command} --model.objective CrossEntropy")
        assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model.objective.kd_weight -1", "kd_weight must be at least 0, and finite, but is -1"),
        ("--model.objective.loss ATSS", "there is no class ATSS; did you mean ATS"),
        ("--model.objective.loss ATS --model.objective.loss.tau 3", "ATS has no option tau"),
        ("--model.objective.loss ATS --model.mixup 0.5", "set both to 0, or choose another objective or loss"),
        ("--model.objective.loss FitNet", "student_layers"),
        ("--model.objective.teacher_args.depth 2", "need teacher to be a name, but"),
        ("--model.objective.teacher convnett", "no network 'convnett'; did you mean convnet"),
        ("--model.objective.teacher convnet", "there are no weights for convnet"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(recipes, teacher, options, message):
    result = recipes(f"fit TINY {DISTILLED.format(teacher)} {options}")
    assert result.code == 2
    assert message in result.error


def test_several_losses_and_several_teachers(recipes, teacher):
    losses = (
        "--model.objective.losses+ KD --model.objective.losses+ DKD --model.objective.losses.beta 2"
        " --model.objective.kd_weight [0.5,2]"
    )
    teachers = f"[{teacher},{teacher}]"
    options = f"{DISTILLED.format(teachers)} {losses} --model.objective.teacher_weights [1,3]"
    result = recipes(f"fit TINY {options} --model.objective.kd_warmup 0.5")
    assert result.code == 0, result.err
    with (result.run / "metrics.csv").open() as rows:
        names = set(csv.DictReader(rows).fieldnames)
    assert {"val/ce", "val/kd", "val/dkd", "val/teacher_accuracy"} <= names
    again = recipes(f"fit -c {result.run}/recipe.yaml")
    assert again.code == 0, again.err
    assert "kd_warmup: 0.5" in (result.run / "recipe.yaml").read_text()


def test_another_loss_brings_its_own_weights(recipes, teacher):
    result = recipes(f"fit -c digits/dkd TINY {DISTILLED.format(teacher)} --model.objective.loss KD")
    assert result.code == 0, result.err
    text = (result.run / "recipe.yaml").read_text()
    assert all(f"{name}: null" in text for name in ("ce_weight", "kd_weight", "kd_warmup"))


def test_weights_that_a_file_gives_for_one_loss_are_not_those_of_another(recipes, teacher, tmp_path):
    file = tmp_path / "own.yaml"
    loss = {"class_path": "DIST"}
    objective = {"class_path": "Distillation", "init_args": {"loss": loss, "ce_weight": 1.0, "kd_weight": 2.0}}
    file.write_text(yaml.safe_dump({"model": {"init_args": {"objective": objective}}}))

    def weights(options):
        result = recipes(f"fit TINY -c {file} --model.objective.teacher {teacher} {options}")
        assert result.code == 0, result.err
        found = yaml.safe_load((result.run / "recipe.yaml").read_text())["model"]["init_args"]["objective"]["init_args"]
        return [found[name] for name in ("ce_weight", "kd_weight")], result

    assert weights("")[0] == [1.0, 2.0]
    assert weights("--model.objective.loss.temperature 4")[0] == [1.0, 2.0]
    found, result = weights("--model.objective.loss KD")
    assert found == [None, None]
    assert any(
        "kd_weight 2.0 of" in str(said) and "is for DIST and is left out" in str(said) for said in result.warnings
    )
    assert weights("--model.objective.loss KD --model.objective.kd_weight 3")[0] == [None, 3.0]


def test_a_loss_is_added_to_that_of_a_recipe(recipes, teacher):
    layers = "--model.objective.losses.student_layers [blocks.0] --model.objective.losses.teacher_layers [blocks.0]"
    losses = f"--model.objective.losses+ AttentionTransfer {layers}"
    result = recipes(f"fit -c digits/kd TINY {DISTILLED.format(teacher)} {losses}")
    assert result.code == 0, result.err
    with (result.run / "metrics.csv").open() as rows:
        assert {"val/kd", "val/attentiontransfer"} <= set(csv.DictReader(rows).fieldnames)
