"""Two processes train every technique, and where no step mixes samples they compute what one process does."""

from pathlib import Path

import local_ddp
import pytest
import torch
from helpers import ids, run_two_processes, trainer, weights
from settings import SETTINGS, VARIANTS

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Results of both processes for every row, trained on half batches."""
    folder = tmp_path_factory.mktemp("ddp")
    run_two_processes(HERE / "ddp_worker.py", folder)
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


@pytest.mark.parametrize("name", ["kd", "ats", "attention_transfer"])
def test_a_teacher_is_not_among_what_processes_share(name, together):
    """Nor among what is trained or saved: all is as without one."""
    plain, taught = (torch.load(together / f"{row}-0.pt") for row in ("supervised", name))
    assert taught["shared"] == plain["shared"]
    assert list(taught["weights"]) == list(plain["weights"])


@pytest.mark.parametrize("case", local_ddp.CASES)
def test_two_processes_that_train_modules_apart_equal_one_to_the_rounding_of_float64(case, together):
    first, second = (torch.load(together / f"local {case}-{rank}.pt") for rank in range(2))
    alone = local_ddp.train(case, 32, accumulate_grad_batches=1)
    assert next(iter(alone.values())).dtype == torch.float64
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        # Six steps of momentum SGD at a learning rate of 0.1; sums are taken in another order.
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-12)
