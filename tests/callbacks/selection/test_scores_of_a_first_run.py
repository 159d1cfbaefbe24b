"""EL2N and Forgetting write what their papers define, of the right samples, and KeepHardest trains on the highest."""

import math

import pytest
import safetensors.torch
import torch
from helpers import Snapshots, trainer
from lightning.pytorch import LightningModule
from lightning_recipes.callbacks import EL2N, Forgetting, KeepHardest
from lightning_recipes.modules.artifacts.score_file import load_scores, save_scores
from lightning_recipes.modules.core.errors import InputError
from settings import classification, digits
from torch.utils.data import DataLoader, TensorDataset


class Table(LightningModule):
    """Its logits of sample i in epoch t are a table's, so that scores can be worked out by hand."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits, dtype=torch.float32)
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, indices):
        return self.logits[self.current_epoch][indices] + self.bias

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def table_run(callback, logits, labels, **options):
    model = Table(logits)
    data = TensorDataset(torch.arange(len(labels)), torch.tensor(labels))
    trainer(max_epochs=len(logits), callbacks=[callback], **options).fit(model, DataLoader(data, 2, shuffle=True))
    return callback.memory["scores"].tolist()


RIGHT, WRONG, EVEN = [100.0, 0.0], [0.0, 100.0], [0.0, 0.0]


def test_el2n_is_the_mean_norm_of_the_error_over_its_epochs(tmp_path):
    """Labels are 0: the error of RIGHT is 0, of WRONG sqrt(2), of EVEN (0.5, -0.5), so sqrt(0.5)."""
    logits = [[WRONG] * 3, [RIGHT, WRONG, EVEN], [RIGHT, EVEN, EVEN], [WRONG] * 3]
    file = tmp_path / "scores.safetensors"
    found = table_run(EL2N(str(file), first_epoch=1, epochs=2), logits, [0, 0, 0])
    expected = [0, (math.sqrt(2) + math.sqrt(0.5)) / 2, math.sqrt(0.5)]
    assert found == pytest.approx(expected, abs=1e-6)
    assert safetensors.torch.load_file(file)["scores"].tolist() == pytest.approx(expected, abs=1e-6)


def test_forgetting_counts_falls_from_right_to_wrong_and_what_was_never_right_is_infinite(tmp_path):
    history = [[RIGHT, WRONG, RIGHT, WRONG], [WRONG, WRONG, RIGHT, RIGHT], [RIGHT, WRONG, RIGHT, WRONG], [WRONG] * 4]
    found = table_run(Forgetting(str(tmp_path / "s")), history, [0, 0, 0, 0])
    assert found == [2, math.inf, 1, 1]


@pytest.mark.parametrize("make", [lambda path: EL2N(path, first_epoch=0, epochs=9), Forgetting])
def test_a_resumed_run_has_the_scores_of_an_uninterrupted_one(make, tmp_path):
    def run(callback, max_epochs=3, **options):
        torch.manual_seed(0)
        snapshots = [Snapshots(tmp_path)] if not options else []
        trainer(max_epochs=max_epochs, callbacks=[callback, *snapshots]).fit(classification(), digits(), **options)
        return callback.memory

    whole = run(make(str(tmp_path / "whole")))
    for number, point in enumerate(sorted(tmp_path.glob("1-*.ckpt"))):
        resumed = run(make(str(tmp_path / f"part{number}")), ckpt_path=point)
        for name, values in whole.items():
            assert torch.equal(values.nan_to_num(-1), resumed[name].nan_to_num(-1)), (point.stem, name)


def test_the_file_lies_in_the_folder_of_the_run_and_is_not_overwritten_by_another(tmp_path):
    def run():
        trainer(max_epochs=1, callbacks=[Forgetting()], default_root_dir=str(tmp_path)).fit(classification(), digits())

    run()
    written = (tmp_path / "scores.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"scores\.safetensors exists: remove it, or give Forgetting another path"):
        run()
    assert (tmp_path / "scores.safetensors").read_bytes() == written


def test_a_second_run_reads_the_hardest_and_no_others(tmp_path):
    file = str(tmp_path / "scores")
    first = EL2N(file, first_epoch=0)
    trainer(max_epochs=2, callbacks=[first]).fit(classification(), digits())
    scores = first.memory["scores"]
    hardest = set(scores.argsort(descending=True)[:65].tolist())
    second = KeepHardest(file, prune_ratio=0.35)
    read = []
    decide = second.decide
    second.decide = lambda *arguments: (read.append(decide(*arguments)), read[-1])[1]
    trainer(max_epochs=2, callbacks=[second]).fit(classification(), digits())
    assert len(read) == 2
    for indices, weights in read:
        assert set(indices.tolist()) == hardest
        assert weights is None


def test_equal_scores_are_chosen_by_chance_the_same_in_every_epoch_and_missing_ones_stay(tmp_path):
    scores = torch.tensor([math.nan] + [1.0] * 50 + [2.0] * 10)
    save_scores(tmp_path / "scores", scores, kind="EL2N", labels=None)
    data = DataLoader(TensorDataset(torch.arange(61), torch.zeros(61, dtype=torch.long)), 8, shuffle=True)
    chosen = []
    for seed in (0, 1):
        callback = KeepHardest(str(tmp_path / "scores"), prune_ratio=0.5, seed=seed)
        trainer(max_epochs=1, callbacks=[callback]).fit(Table([[RIGHT] * 61]), data)
        callback.setup(trainer(max_epochs=3, callbacks=[callback]), Table([[RIGHT] * 61]), "fit")
        callback._take_over(data)
        epochs = [set(callback.decide(callback.memory["scores"], epoch)[0].tolist()) for epoch in range(3)]
        assert epochs[0] == epochs[1] == epochs[2]
        chosen.append(epochs[0])
    for kept in chosen:
        assert len(kept) == 30
        assert {0, *range(51, 61)} <= kept
    assert chosen[0] != chosen[1]


def test_several_files_are_averaged(tmp_path):
    save_scores(tmp_path / "a", torch.tensor([1.0, 2.0, math.nan, math.inf]), kind="EL2N", labels=None)
    save_scores(tmp_path / "b", torch.tensor([3.0, 2.0, 5.0, 1.0]), kind="EL2N", labels=None)
    callback = KeepHardest([str(tmp_path / "a"), str(tmp_path / "b")])
    data = DataLoader(TensorDataset(torch.arange(4), torch.zeros(4, dtype=torch.long)), 2)
    trainer(max_epochs=1, callbacks=[callback]).fit(Table([[RIGHT] * 4]), data)
    assert callback.memory["scores"].tolist() == [2, 2, 5, math.inf]


def test_scores_of_other_samples_are_refused(tmp_path):
    labels = torch.arange(6)
    save_scores(tmp_path / "scores", torch.zeros(6), kind="EL2N", labels=labels)
    path = str(tmp_path / "scores")
    assert load_scores(path, size=6, labels=labels).tolist() == [0] * 6
    assert load_scores(path, size=6, labels=None).tolist() == [0] * 6
    with pytest.raises(InputError, match="has scores of 6 samples but there are 7 training samples: run with"):
        load_scores(path, size=7, labels=None)
    with pytest.raises(InputError, match="other labels than these in this order: run with"):
        load_scores(path, size=6, labels=labels.flip(0))


@pytest.mark.parametrize("content", [b"", b"not safetensors"])
def test_files_that_hold_no_scores_are_refused(content, tmp_path):
    (tmp_path / "scores").write_bytes(content)
    with pytest.raises(InputError, match="is not a file of scores by EL2N or Forgetting"):
        load_scores(str(tmp_path / "scores"), size=1, labels=None)
    with pytest.raises(InputError, match="no file of scores at nowhere"):
        load_scores("nowhere", size=1, labels=None)


def test_a_run_that_cannot_be_scored_is_refused(tmp_path):
    path = str(tmp_path / "scores")
    with pytest.raises(InputError, match="turn mixup and cutmix off"):
        trainer(max_epochs=1, callbacks=[Forgetting(path)]).fit(classification(mixup=1.0), digits())
    with pytest.raises(InputError, match="first_epoch 10 is after the last of max_epochs 3"):
        trainer(max_epochs=3, callbacks=[EL2N(path)]).fit(classification(), digits())

    class NoForward(Table):
        def training_step(self, batch, batch_idx):
            return self.forward(batch[0]).mean()

    data = DataLoader(TensorDataset(torch.arange(4), torch.zeros(4, dtype=torch.long)), 2)
    with pytest.raises(InputError, match=r"training_step got none by self\(inputs\)"):
        trainer(max_epochs=1, callbacks=[Forgetting(path)]).fit(NoForward([[RIGHT] * 4]), data)

    class Soft(Table):
        def training_step(self, batch, batch_idx):
            return self(batch[0]).mean()

    soft = DataLoader(TensorDataset(torch.arange(4), torch.ones(4, 2)), 2)
    with pytest.raises(InputError, match=r"class indices \(N,\), not of soft"):
        trainer(max_epochs=1, callbacks=[Forgetting(path)]).fit(Soft([[RIGHT] * 4]), soft)
    assert not (tmp_path / "scores").exists()


def test_the_module_is_left_as_it_was(tmp_path):
    model = classification()
    trainer(max_epochs=1, callbacks=[Forgetting(str(tmp_path / "scores"))]).fit(model, digits())
    assert not model._forward_hooks


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EL2N(first_epoch=-1), "first_epoch must be at least 0"),
        (lambda: EL2N(epochs=0), "epochs must be at least 1"),
        (lambda: KeepHardest([]), "scores must name a file"),
        (lambda: KeepHardest("a", prune_ratio=1.0), "prune_ratio must be in"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
