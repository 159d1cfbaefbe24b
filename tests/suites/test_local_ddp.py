"""Two processes that train modules apart compute what one does on the joint batch, to the rounding of float64."""

from pathlib import Path

import local_ddp
import pytest
import torch
from helpers import run_two_processes
from local_ddp import CASES, train


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Results of both processes for every case, trained on half batches."""
    folder = tmp_path_factory.mktemp("local")
    run_two_processes(Path(local_ddp.__file__), folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_on_the_joint_batch(case, together):
    first, second = (torch.load(together / f"{case}-{rank}.pt") for rank in range(2))
    alone = train(case, 32, accumulate_grad_batches=1)
    assert next(iter(alone.values())).dtype == torch.float64
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        # Six steps of momentum SGD at a learning rate of 0.1; sums are taken in another order.
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-12)
