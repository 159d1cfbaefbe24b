"""GracefulInterrupt in two processes; tests/cli/test_interrupt.py has one process and the printed command."""

import json
from pathlib import Path

import torch
from helpers import run_two_processes


def test_signal_to_one_process_ends_both_after_the_same_step(tmp_path):
    # Lightning kills the first process when another of its processes fails, so the second ends with 0.
    run_two_processes(Path(__file__).with_name("interrupt_worker.py"), tmp_path, codes=[143, 0])
    assert torch.load(tmp_path / "interrupted.ckpt")["global_step"] == 5
    assert json.loads((tmp_path / "summary.json").read_text())["optimizer steps"] == 5
