from __future__ import annotations

import os

import pytest
import torch

# Nothing in the tests may reach a server, and two processes share the machine.
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path_factory, monkeypatch):
    """Each test starts in a folder of its own, and a relative path written by mistake shows up there."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
