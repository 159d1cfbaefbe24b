"""Two processes train every technique, and where no step mixes samples they compute what one process does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ids, trainer, weights
from settings import SETTINGS, VARIANTS

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Results of both processes for every row, trained on half batches."""
    folder = tmp_path_factory.mktemp("ddp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    paths = {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "ddp_worker.py"), str(folder)],
            env={**os.environ, **shared, **paths, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)[-3000:]
    return folder


@pytest.mark.parametrize("setting", SETTINGS + VARIANTS, ids=ids)
def test_both_processes_end_with_the_same_weights(setting, together):
    first, second = (torch.load(together / f"{setting.name}-{rank}.pt") for rank in range(2))
    assert first["steps"] == second["steps"]
    assert first["steps"] <= 6 if setting.selects_samples else first["steps"] == 6
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())


@pytest.mark.parametrize("setting", [s for s in SETTINGS + VARIANTS if s.ddp_equals_single], ids=ids)
def test_two_processes_equal_one_on_the_joint_batch(setting, together):
    torch.manual_seed(0)
    model = setting.model()
    run = trainer(max_epochs=2, callbacks=setting.callbacks())
    run.fit(model, setting.data(batch_size=32))
    result = torch.load(together / f"{setting.name}-0.pt")
    assert result["steps"] == run.global_step
    for name, value in weights(model).items():
        # Sums are taken in another order.
        torch.testing.assert_close(result["weights"][name], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(result["logged"]["val/loss"], run.callback_metrics["val/loss"], rtol=1e-4, atol=1e-4)
