"""What the tests of the command line share: `recipes`, which runs one command in this process."""

import logging
import shlex
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lightning_recipes.recipes.cli import main

# Five steps an epoch of a network of one small layer.
TINY = (
    "-c digits/supervised --model.network_args.depth 1 --model.network_args.width 4"
    " --data.subset 8 --data.batch_size 16 --trainer.max_epochs 1"
)


@dataclass
class Result:
    code: int | None
    out: str
    err: str
    warnings: list[str] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """The run folder, where the summary says it is."""
        return Path(next(line for line in self.out.splitlines() if line.startswith("run folder")).split()[-1])

    @property
    def error(self) -> str:
        """The message, which is short and no traceback."""
        assert self.err.startswith("error: "), self.err
        assert "Traceback" not in self.err
        assert len(self.err.splitlines()) <= 3, self.err
        assert len(self.err) < 500, self.err
        return self.err


class _Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.text = ""

    def emit(self, record):
        self.text += record.getMessage() + "\n"


@pytest.fixture
def recipes(capsys, monkeypatch):
    """Runs one command; TINY in it stands for a run of a second."""

    def run(command: str, *more: str) -> Result:
        capsys.readouterr()
        lines = _Lines()
        logger = logging.getLogger("lightning.pytorch")
        logger.addHandler(lines)
        arguments = [*shlex.split(command.replace("TINY", TINY)), *more]
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    code = main(arguments)
                except SystemExit as end:
                    code = end.code
        finally:
            logger.removeHandler(lines)
            # As the end of the process would.
            if "wandb" in sys.modules:
                sys.modules["wandb"].finish()
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err + lines.text, [str(warning.message) for warning in caught])

    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    # Runs in one process must not see each other's.
    for name in ("RECIPES_RUN_DIR", "PL_GLOBAL_SEED"):
        monkeypatch.delenv(name, raising=False)
    return run


@pytest.fixture
def nothing_left():
    """The current folder holds the same files after the test as before."""
    before = sorted(Path.cwd().rglob("*"))
    yield
    assert sorted(Path.cwd().rglob("*")) == before
