"""A stranger's run goes on from any checkpoint as if it had not been interrupted, in one process and in two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign import Contracted, Manual, Stranger, fit, loader
from helpers import Snapshots, run_two_processes, weights
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning_recipes.callbacks import InfoBatch, RandomSubset
from lightning_recipes.modules.core.errors import InputError


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # restored after the test
    seed_everything(5, verbose=False)


def onecycle(optimizer, steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps)


def state(model):
    """Everything that may differ."""
    schedule = model.lr_schedulers()
    rates = [] if schedule is None else [schedule.last_epoch, *schedule.get_last_lr()]
    optimizer = [value["momentum_buffer"] for value in model.optimizers().optimizer.state.values()]
    return [*weights(model).values(), *optimizer, *map(torch.as_tensor, rates)]


def differing(points, whole, make, data, callbacks=lambda: [InfoBatch(delta=0.8)], **options):
    """Checkpoints from which another run came out."""
    wrong = []
    for point in points:
        seed_everything(5, verbose=False)
        resumed = make()
        run = fit(resumed, data(), *callbacks(), ckpt_path=point, **options)
        same = all(torch.equal(*pair) for pair in zip(state(resumed), state(whole), strict=True))
        rest = whole.steps[len(whole.steps) - len(resumed.steps) :]
        same &= [step.indices for step in resumed.steps] == [step.indices for step in rest]
        if not same or run.global_step != len(whole.steps):
            wrong.append(point.stem)
    return wrong


@pytest.mark.parametrize(
    ("options", "schedule", "first"),
    [
        pytest.param({}, None, True, marks=pytest.mark.product),
        pytest.param({}, onecycle, False, marks=pytest.mark.product),
        ({}, onecycle, True),
        pytest.param({"val_check_interval": 2}, onecycle, True, marks=pytest.mark.product),
        ({"val_check_interval": 0.5, "limit_train_batches": 5}, onecycle, False),
        ({"reload_dataloaders_every_n_epochs": 1}, onecycle, False),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_resumed_anywhere(tmp_path, options, schedule, first):
    """The checkpoint is written before or after the callback's own turn."""

    def make():
        return Stranger(43, schedule=schedule)

    def data():
        return loader(43)

    whole, order = make(), [InfoBatch(delta=0.8), Snapshots(tmp_path)]
    options = {"max_epochs": 4, **options}
    fit(whole, data(), *(order[::-1] if first else order), **options)
    lengths = [len(whole.epoch(epoch)) for epoch in range(4)]
    assert lengths[1] < lengths[0] == lengths[3]
    points = sorted(tmp_path.glob("*.ckpt"))
    assert len(points) >= sum(lengths) + 4
    assert differing(points, whole, make, data, **options) == []


@pytest.mark.parametrize(("schedule", "persistent"), [(None, False), (onecycle, True)])
def test_resumed_with_workers(tmp_path, schedule, persistent):
    def make():
        return Stranger(43, schedule=schedule)

    def data():
        return loader(43, num_workers=2, persistent_workers=persistent)

    whole = make()
    fit(whole, data(), InfoBatch(delta=0.8), Snapshots(tmp_path), max_epochs=4)
    ends = [sum(len(whole.epoch(before)) for before in range(epoch + 1)) for epoch in range(4)]
    names = [f"0-{ends[0] - 2}-batch", f"0-{ends[0]}-epoch", f"1-{ends[0] + 2}-batch", f"2-{ends[2]}-validation"]
    points = [tmp_path / f"{name}.ckpt" for name in names]
    assert differing(points, whole, make, data, max_epochs=4) == []


@pytest.mark.parametrize(
    ("kind", "callbacks"),
    [
        (Contracted, lambda: [InfoBatch(delta=0.8, score_momentum=0.5)]),
        (Stranger, lambda: [RandomSubset(0.4, rescale=True)]),
        (Manual, lambda: [InfoBatch(delta=1.0)]),
    ],
    ids=["contract", "random", "manual"],
)
def test_other_modules_and_rules(tmp_path, kind, callbacks):
    def make():
        return kind(43)

    def data():
        return loader(43, drop_last=True)

    whole = make()
    fit(whole, data(), *callbacks(), Snapshots(tmp_path))
    points = sorted(tmp_path.glob("*.ckpt"))
    assert len(points) > 12
    assert differing(points, whole, make, data, callbacks) == []


def test_saved_by_hand_after_the_run_and_continued(tmp_path):
    """``trainer.save_checkpoint`` after ``fit`` holds the scores too."""
    whole, model = Stranger(43), Stranger(43)
    fit(whole, loader(43), InfoBatch(delta=1.0), max_epochs=4)
    run = fit(model, loader(43), InfoBatch(delta=1.0), max_epochs=2)
    run.save_checkpoint(tmp_path / "last.ckpt")
    resumed = Stranger(43)
    fit(resumed, loader(43), InfoBatch(delta=1.0), max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    steps = model.steps + resumed.steps
    assert [step.indices for step in steps] == [step.indices for step in whole.steps]
    assert all(torch.equal(*pair) for pair in zip(state(resumed), state(whole), strict=True))


@pytest.mark.parametrize("hook", ["on_after_backward", "on_train_batch_start", "on_train_batch_end", "validation_step"])
@pytest.mark.parametrize("at", [2, 7])
def test_resumed_where_an_exception_struck(tmp_path, hook, at):
    class Breaks(Stranger):
        broken = False

    def breaking(self, *args):
        if self.broken and len(self.steps) >= at:
            raise KeyError("broken")
        return getattr(Stranger, hook)(self, *args) if hasattr(Stranger, hook) else None

    setattr(Breaks, hook, breaking)

    def make():
        return Breaks(43, schedule=onecycle)

    def data():
        return loader(43)

    whole, broken = make(), make()
    fit(whole, data(), InfoBatch(delta=0.8))
    broken.broken = True
    with pytest.raises(KeyError):
        fit(broken, data(), InfoBatch(delta=0.8), OnExceptionCheckpoint(tmp_path), enable_checkpointing=True)
    assert differing([tmp_path / "on_exception.ckpt"], whole, make, data) == []


def test_checkpoints_can_be_read_without_running_code(tmp_path):
    fit(Stranger(43), loader(43), InfoBatch(), Snapshots(tmp_path), max_epochs=2)
    for point in tmp_path.glob("*.ckpt"):
        found = torch.load(point, weights_only=True)["callbacks"]["InfoBatch"]
        assert found["memory"]["scores"].shape == (43,)


def test_a_checkpoint_of_a_run_without_it(tmp_path):
    """The first epoch after has no scores, the next one has."""
    kind = type("Plain", (Contracted,), {})
    fit(kind(), loader(), Snapshots(tmp_path), max_epochs=2)
    model = kind()
    fit(model, loader(), InfoBatch(delta=1.0), max_epochs=4, ckpt_path=tmp_path / "1-10-epoch.ckpt")
    assert len(model.indices(2)) == 40 > len(model.indices(3))


# -- two processes ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What both processes of ``selection_worker.py`` saw."""
    folder = tmp_path_factory.mktemp("ddp")
    run_two_processes(Path(__file__).with_name("selection_worker.py"), folder)
    return folder


@pytest.mark.parametrize("size", [96, 97])
def test_two_processes_share_an_epoch(together, size):
    first, second = (torch.load(together / f"{size}-{rank}.pt") for rank in range(2))
    for before, after in zip(first["scores"], second["scores"], strict=True):
        assert torch.equal(before.view(torch.int32), after.view(torch.int32))
    single = Stranger(size)
    fit(single, loader(size, 16), InfoBatch(delta=0.8), max_epochs=4)
    for epoch in range(4):
        shares = [[step for step in run["steps"] if step[0] == epoch] for run in (first, second)]
        assert [len(step[1]) for step in shares[0]] == [len(step[1]) for step in shares[1]]
        read = [index for pair in zip(*shares, strict=True) for step in pair for index in step[1]]
        chosen = set(read)
        assert len(read) - len(chosen) <= 3  # fill a batch and a process
        before, after = first["scores"][epoch : epoch + 2]
        easy = before < before.nanmean() if 0 < epoch < 3 else torch.zeros(size, dtype=torch.bool)
        assert len(chosen) == size - easy.sum() + round(easy.sum().item() / 2)
        assert set((~easy).nonzero().flatten().tolist()) <= chosen
        assert chosen == set(single.indices(epoch))
        if epoch == 0 and size == 96:  # else the last batch is filled in another way
            joint = torch.stack([torch.cat([step[2] for step in share]) for share in shares], 1).flatten()
            torch.testing.assert_close(joint, torch.cat([step.losses for step in single.epoch(0)]))
        expected = before.clone()
        places = {}
        for share in shares:
            for _, indices, losses in share:
                for index, loss in zip(indices, losses, strict=True):
                    places.setdefault(index, []).append(loss)
        for index, losses in places.items():
            assert after[index] in losses
            expected[index] = after[index]
        assert torch.equal(after.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("size", [96, 97])
def test_two_processes_resume_anywhere(together, size):
    for rank in range(2):
        result = torch.load(together / f"{size}-{rank}.pt")
        assert len(result["resumed"]) == (4 if size == 97 else 2)
        assert [name for name, same in result["resumed"].items() if not same] == []


@pytest.mark.parametrize("change", ["seed", "prune_ratio", "batch_size"])
def test_other_arguments_within_an_epoch_are_refused_and_at_its_end_are_not(tmp_path, change):
    """Its losses would be taken for those of other samples."""
    fit(Stranger(43), loader(43), InfoBatch(delta=1.0), Snapshots(tmp_path), max_epochs=3)
    arguments = {"seed": {"seed": 99}, "prune_ratio": {"prune_ratio": 0.9}}.get(change, {})
    data = loader(43, 6 if change == "batch_size" else 8)
    within = tmp_path / "1-7-batch.ckpt"
    with pytest.raises(InputError, match="the checkpoint lies within an epoch of InfoBatch"):
        fit(Stranger(43), data, InfoBatch(delta=1.0, **arguments), max_epochs=3, ckpt_path=within)
    (end,) = tmp_path.glob("1-*-epoch.ckpt")
    fit(Stranger(43), data, InfoBatch(delta=1.0, **arguments), max_epochs=3, ckpt_path=end)
