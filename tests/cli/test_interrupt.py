"""A signal loses nothing: the printed command goes on where the run stopped and ends with the same weights."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

# Order, augmentation, Mixup and schedule all have to be taken up where they were.
LONG = "TINY --trainer.max_epochs 3 --model.mixup 0.2 --data.flip true --data.crop_padding 1"

PRESS = '''
import os, signal
from lightning.pytorch import Callback


class Press(Callback):
    """Sends a signal at the start of a step or in the validation after so many steps; by default Ctrl-C."""

    def __init__(self, step: int, hook: str = "batch", times: int = 1, number: int = signal.SIGINT):
        self.step, self.hook, self.times, self.number = step, hook, times, number

    def press(self, trainer, hook):
        if hook == self.hook and trainer.global_step == self.step and not trainer.sanity_checking:
            self.hook = ""
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, *_):
        self.press(trainer, "batch")

    def on_before_backward(self, trainer, *_):
        self.press(trainer, "backward")

    def on_validation_batch_start(self, trainer, *_):
        self.press(trainer, "validation")
'''


@pytest.fixture
def press(recipes, tmp_path, monkeypatch):
    """Fits with Ctrl-C pressed and gives the result."""
    (tmp_path / "presses.py").write_text(PRESS)
    monkeypatch.syspath_prepend(tmp_path)

    def fit(options, step, hook="batch", times=1, number=signal.SIGINT):
        try:
            return recipes(
                f"fit {options} --trainer.callbacks+=presses.Press --trainer.callbacks.step {step}"
                f" --trainer.callbacks.hook {hook} --trainer.callbacks.times {times}"
                f" --trainer.callbacks.number {int(number)}"
            )
        finally:
            # Lightning leaves the signal ignored, as the process is about to end.
            signal.signal(signal.SIGINT, signal.default_int_handler)

    yield fit
    sys.modules.pop("presses", None)


def resume_command(result):
    (line,) = [line for line in result.err.splitlines() if line.startswith("Interrupted. To go on: recipes ")]
    return line.removeprefix("Interrupted. To go on: recipes ")


def state(run, name="last"):
    content = torch.load(run / f"checkpoints/{name}.ckpt")
    return content["state_dict"], content["optimizer_states"], content["lr_schedulers"], content["global_step"]


def assert_same_end(run, other):
    for name in ("last", "best"):
        torch.testing.assert_close(state(run, name), state(other, name), rtol=0, atol=0)
    for key in ("best val/accuracy", "last val/accuracy", "epochs"):
        figures = [json.loads((folder / "summary.json").read_text())[key] for folder in (run, other)]
        assert figures[0] == figures[1], key


@pytest.mark.parametrize(
    ("options", "hook", "steps"),
    [
        ("", "batch", (0, 7)),
        ("", "validation", (10,)),
        ("--trainer.val_check_interval 2", "batch", (6,)),
        ("--trainer.val_check_interval 2", "validation", (9,)),
        ("--trainer.check_val_every_n_epoch 2", "batch", (9,)),
        ("--trainer.accumulate_grad_batches 2", "batch", (4,)),
        ("--model.lr_interval step --model.network_args.norm batch", "batch", (6,)),
        ("-c ema", "batch", (6,)),
    ],
)
def test_interrupted_run_goes_on_bit_for_bit(recipes, press, options, hook, steps):
    whole = recipes(f"fit {LONG} {options}")
    assert whole.code == 0, whole.err
    for step in steps:
        interrupted = press(f"{LONG} {options}", step, hook)
        assert interrupted.code == 1
        command = resume_command(interrupted)
        assert command.endswith("interrupted.ckpt")
        resumed = recipes(f"{command} --trainer.callbacks null" if "ema" not in options else command)
        assert resumed.code == 0, resumed.err
        assert_same_end(whole.run, resumed.run)
        assert not [text for text in resumed.warnings if "esum" in text or "monitor" in text or "dirpath" in text]


def test_ctrl_c_in_the_last_epoch_validation_lets_the_run_finish(press):
    result = press(LONG, 15, "validation")
    assert result.code == 0
    assert (result.run / "summary.json").is_file()
    assert not (result.run / "checkpoints/interrupted.ckpt").exists()


def test_second_ctrl_c_ends_at_once(press):
    result = press(LONG, 7, times=2)
    assert result.code == 1
    assert resume_command(result).endswith("checkpoints/last.ckpt")
    assert not list(Path.cwd().rglob("interrupted.ckpt"))


def test_ctrl_c_before_any_checkpoint_says_so(press):
    result = press(LONG, 0, times=2)
    assert result.code == 1
    assert "Interrupted before a checkpoint had been written." in result.err


def test_every_epochs_checkpoint_goes_on_bit_for_bit(recipes):
    Path("every.yaml").write_text(
        "trainer:\n  callbacks+:\n  - class_path: ModelCheckpoint\n"
        "    init_args: {dirpath: every, filename: '{epoch}', save_top_k: -1}\n"
    )
    whole = recipes(f"fit {LONG} -c every.yaml")
    checkpoints = sorted(Path("every").iterdir())
    assert [file.name for file in checkpoints] == ["epoch=0.ckpt", "epoch=1.ckpt", "epoch=2.ckpt"]
    assert whole.code == 0
    expected = torch.load(checkpoints[-1])["state_dict"]
    for checkpoint in checkpoints[:-1]:
        assert recipes(f"fit {LONG} --ckpt_path {checkpoint} --run_dir from-{checkpoint.stem}").code == 0
        torch.testing.assert_close(state(Path(f"from-{checkpoint.stem}"))[0], expected, rtol=0, atol=0)


def test_best_checkpoint_is_that_of_the_whole_run(recipes, press):
    """The first epoch's is the best here, as the rate is then raised beyond use."""
    interrupted = press(LONG, 7)
    resumed = recipes(resume_command(interrupted) + " --model.optimizer.lr 0.1 --data.label_noise 0.9")
    assert resumed.code == 0, resumed.err
    figures = json.loads((resumed.run / "summary.json").read_text())
    metrics = (resumed.run / "metrics.csv").read_text()
    assert Path(figures["best checkpoint"]).parent.parent == resumed.run
    assert figures["best val/accuracy"] >= figures["last val/accuracy"], metrics
    tested = recipes(f"validate -c {resumed.run}/recipe.yaml --ckpt_path {figures['best checkpoint']} --run_dir v")
    assert tested.code == 0
    assert json.loads(Path("v/metrics.json").read_text())["val/accuracy"] == figures["best val/accuracy"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_other_signals_do_as_ctrl_c_and_name_themselves_by_the_exit_code(recipes, press, number, code):
    whole = recipes(f"fit {LONG}")
    handler = signal.getsignal(number)
    interrupted = press(LONG, 7, number=number)
    assert interrupted.code == code
    assert signal.getsignal(number) == handler
    figures = json.loads((interrupted.run / "summary.json").read_text())
    assert (figures["optimizer steps"], figures["epochs"]) == (8, 1)
    resumed = recipes(resume_command(interrupted))
    assert resumed.code == 0, resumed.err
    assert_same_end(whole.run, resumed.run)


def test_requeue_signal_of_slurm_saves_between_steps_and_requeues(press, monkeypatch, tmp_path):
    """The weights are moved by AWP when the signal comes; the checkpoint holds those of the step's end."""
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $* > {tmp_path}/called\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    job = {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "1", "NODELIST": "localhost"}
    for name, value in {**job, "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    Path("every.yaml").write_text(
        "trainer:\n  callbacks+:\n  - class_path: ModelCheckpoint\n"
        "    init_args: {every_n_train_steps: 1, save_top_k: -1, dirpath: every, filename: '{step}'}\n"
    )
    result = press("TINY -c awp -c every.yaml", 3, hook="backward", number=signal.SIGUSR1)
    assert result.code == 138
    saved = torch.load(result.run / "hpc_ckpt_1.ckpt")
    expected = torch.load("every/step=4.ckpt")["state_dict"]
    torch.testing.assert_close(saved["state_dict"], expected, rtol=0, atol=0)
    assert (tmp_path / "called").read_text() == "requeue 7\n"


def test_ctrl_c_from_the_keyboard(tmp_path):
    """A process of its own, with a signal from outside."""
    script = Path(sys.executable).with_name("recipes")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [script, "fit", "-c", "digits/supervised", "--trainer.max_epochs", "100000", "--run_dir", "a run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout.readline().startswith("epoch 1/")
        time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=600)
    assert run.returncode == 1
    assert "Traceback" not in err
    line = err.strip().splitlines()[-1]
    assert line.startswith("Interrupted. To go on: recipes fit -c 'a run/recipe.yaml' --ckpt_path 'a run/checkpoints/")
    assert Path(shlex.split(line)[-1]).is_file()
