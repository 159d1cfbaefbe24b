"""Runs killed at random, half of the time while a checkpoint is written, and started again until they are through.

Every run is a process of its own, killed by SIGKILL, that is started again by the same command with ``--resume``. A run
that was killed must end with the weights, the optimizer and the rows of ``metrics.csv`` of the run that was not.
"""

import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.trainer import call

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes by fork")]

SMALL = "--data.subset 8 --data.batch_size 16 --trainer.max_epochs 3 --model.network_args.width 4"
TINY = f"{SMALL} --model.network_args.depth 1"
OFTEN = (
    "trainer:\n  callbacks+:\n  - class_path: ModelCheckpoint\n"
    "    init_args: {every_n_train_steps: 2, save_top_k: -1, save_last: true, filename: '{step}'}\n"
)
BY_TIME = (
    "trainer:\n  callbacks+:\n  - class_path: ModelCheckpoint\n"
    "    init_args: {monitor: val/loss, save_top_k: 2, save_last: true, filename: '{epoch}-{step}'}\n"
)
LOCAL = "--data.subset 8 --data.batch_size 16 --trainer.max_epochs 3 --model.network cifar_resnet8"
RECIPES = {
    "supervised": f"-c digits/supervised {TINY}",
    "mixup": f"-c digits/supervised {TINY} --model.mixup 0.4",
    "validation within": f"-c digits/supervised {TINY} --trainer.val_check_interval 2",
    "accumulation": f"-c digits/supervised {TINY} --trainer.accumulate_grad_batches 2",
    "workers": f"-c digits/supervised {TINY} --data.num_workers 1",
    "infobatch": f"-c digits/infobatch {TINY}",
    "ucb": f"-c digits/ucb {TINY}",
    "pgd_at": f"-c digits/pgd_at {TINY} --trainer.callbacks []",
    "awp": f"-c digits/supervised -c awp {TINY}",
    "dgl": f"-c digits/dgl {LOCAL}",
    "man": f"-c digits/man {LOCAL}",
}
RULES = {"best and last": None, "every two steps": OFTEN, "best two": BY_TIME}
TRIALS = 2
"""Runs for each recipe and rule, of one to three kills each: 66 runs and more than 100 kills."""


@pytest.fixture(scope="module")
def table():
    """Counts of each recipe and rule, printed at the end."""
    rows = []
    yield rows
    print(f"\n{'recipe':<20}{'checkpoints':<18}{'runs':>5}{'kills':>7}{'exact':>7}")
    for recipe, rule, runs, kills, exact in rows:
        print(f"{recipe:<20}{rule:<18}{runs:>5}{kills:>7}{exact:>7}")
    print(
        f"{'all':<38}{sum(row[2] for row in rows):>5}{sum(row[3] for row in rows):>7}{sum(row[4] for row in rows):>7}"
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_killed_run_ends_as_the_whole_run(recipe, rule, table):
    command = f"fit {RECIPES[recipe]}"
    if RULES[rule] is not None:
        Path("rule.yaml").write_text(RULES[rule])
        command += " -c rule.yaml"
    hooks, saves = run(f"{command} --run_dir whole")
    expected = ending("whole")
    source = random.Random(f"{recipe} {rule}")
    kills, different = 0, []
    for trial in range(TRIALS):
        again = f"{command} --run_dir run{trial} --resume"
        for _ in range(source.randint(1, 3)):
            writing = source.random() < 0.5
            place = ("save", source.randint(1, saves)) if writing else ("hook", source.randint(1, hooks))
            kills += run(again, kill_at=place) is None
        assert run(again) is not None
        found = ending(f"run{trial}")
        names = [name for name in expected if not (RULES[rule] and name.startswith("last"))]
        different += [f"run{trial}: {name}" for name in names if found.get(name) != expected[name]]
    table.append((recipe, rule, TRIALS, kills, TRIALS - len({text.partition(":")[0] for text in different})))
    assert not different
    assert kills > 0


def ending(folder):
    """What a run leaves, by name: each checkpoint's weights, optimizer, schedules and position, and the logged rows."""
    left = {"rows": sorted((Path(folder) / "metrics.csv").read_text().splitlines())}
    for path in Path(folder).rglob("*.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        if checkpoint["lightning_recipes.position"]["point"] == "run_end":
            continue  # Lightning's rule writes a last one at the end where a resumed run had nothing else to write
        parts = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
        left[path.name] = [_plain(checkpoint[part]) for part in parts]
    return left


def _plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def run(command, *, kill_at=None):
    """Run a command in a forked process.

    Returns:
        The number of hooks called and of checkpoints written; None if it was killed.
    """
    receive, send = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = _run_here(command, kill_at, send)
        finally:
            os._exit(code)
    send.close()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert kill_at is not None
        return None
    assert os.WEXITSTATUS(status) == 0, Path("output.txt").read_text()[-3000:]
    return receive.recv()


def _run_here(command, kill_at, send):
    from lightning_recipes.recipes.cli import main

    counts = {"hook": 0, "save": 0}

    def passed(place):
        counts[place] += 1
        if kill_at == (place, counts[place]):
            if place == "save":
                return True
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    hooks, save = call._call_callback_hooks, torch.save

    def counted(*arguments, **options):
        passed("hook")
        return hooks(*arguments, **options)

    def half(value, file, *arguments, **options):
        if passed("save"):
            file.write(b"PK" * 500)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return save(value, file, *arguments, **options)

    call._call_callback_hooks, torch.save = counted, half
    with open("output.txt", "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = output
        code = main(command.split())
    send.send((counts["hook"], counts["save"]))
    return code
