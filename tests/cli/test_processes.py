"""Processes that torchrun or SLURM has started agree before they are a process group."""

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.recipes.cli.processes import shared_by_processes


@pytest.fixture
def three_processes(monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for name, value in {"WORLD_SIZE": "3", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)


def answers(choose):
    """What the first of three processes, which comes last, and the others get."""
    begun = threading.Barrier(3)

    def take_part(part):
        begun.wait()
        return shared_by_processes(part)

    with ThreadPoolExecutor(3) as pool:
        return [pool.submit(take_part, part) for part in (None, None, choose)]


def test_all_get_what_the_first_chooses(three_processes):
    assert [answer.result() for answer in answers(lambda: ["runs/now", None])] == [["runs/now", None]] * 3


def test_all_are_refused_with_the_first(three_processes):
    def refuse():
        raise InputError("run_dir a holds a run already")

    for answer in answers(refuse):
        with pytest.raises(InputError, match="run_dir a holds a run already"):
            answer.result()


def test_a_process_alone_asks_nobody(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert shared_by_processes(lambda: 1) == 1
    assert "MASTER_PORT" not in os.environ
