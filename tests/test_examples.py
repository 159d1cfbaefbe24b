"""The examples in docstrings run, and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch
from test_structure import ROOT, sources

FILES = [path for path in sources() if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_of_a_file(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = ".".join(["lightning_recipes", *path.relative_to(ROOT).with_suffix("").parts])
    result = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch})
    assert result.attempted
    assert not result.failed
