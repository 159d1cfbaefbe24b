"""What the tests of the command line share: `recipes` and `fitted`, which run one command in this process."""

import logging
import os
import shlex
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lightning_recipes.recipes.cli import main, trainer_cli

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
        # Python hides deprecations unless they are asked for.
        shown = [str(warning.message) for warning in caught if not issubclass(warning.category, DeprecationWarning)]
        return Result(code, captured.out, captured.err + lines.text, shown)

    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    # Runs in one process must not see what others left: the run folder, the seed, the rank.
    before = dict(os.environ)
    yield run
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def fitted(recipes, monkeypatch):
    """Fits TINY with options; gives the CLI object, which holds trainer and model, and the result."""
    made = []
    execute = trainer_cli.RecipesCLI.execute
    monkeypatch.setattr(trainer_cli.RecipesCLI, "execute", lambda cli: (made.append(cli), execute(cli)))

    def fit(options):
        result = recipes(f"fit TINY {options}")
        assert result.code == 0, result.err
        return made[-1], result

    return fit


@pytest.fixture
def nothing_left():
    """The current folder holds the same files after the test as before."""
    before = sorted(Path.cwd().rglob("*"))
    yield
    assert sorted(Path.cwd().rglob("*")) == before
