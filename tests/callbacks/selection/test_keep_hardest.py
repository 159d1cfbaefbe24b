"""KeepHardest reads what it was told to and refuses what it cannot choose by."""

import math

import pytest
import safetensors.torch
import torch
from helpers import Snapshots, trainer, weights
from lightning.pytorch import LightningModule
from lightning_recipes.callbacks import KeepHardest
from lightning_recipes.modules.artifacts.score_file import save_scores
from lightning_recipes.modules.core.errors import InputError
from settings import classification, digits
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Reader(LightningModule):
    """A stranger's module that takes note of the samples it reads; a scalar loss is enough."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))
        self.read = {}

    def training_step(self, batch, batch_idx):
        self.read.setdefault(self.current_epoch, []).extend(batch[0].tolist())
        return self.bias**2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def file(tmp_path, scores, kind="EL2N", name="s"):
    save_scores(tmp_path / name, torch.as_tensor(scores), kind=kind, labels=None)
    return str(tmp_path / name)


def read(callback, size, epochs=3, data=None):
    model = Reader()
    data = data or DataLoader(TensorDataset(torch.arange(size), torch.zeros(size, dtype=torch.long)), 2, shuffle=True)
    trainer(max_epochs=epochs, callbacks=[callback]).fit(model, data)
    return model.read


def test_each_epoch_reads_the_highest_and_each_of_them_once(tmp_path):
    """Of ten 0.35 is left out, so 6 stay (round(6.5) is 6): never, unscored, and the four highest of the others."""
    scores = [0.1, math.inf, 0.9, 0.2, math.nan, 0.8, 0.3, 0.7, 0.0, 0.6]
    seen = read(KeepHardest(file(tmp_path, scores), prune_ratio=0.35), 10)
    assert len(seen) == 3
    for samples in seen.values():
        assert sorted(samples) == [1, 2, 4, 5, 7, 9]


@pytest.mark.parametrize(("prune_ratio", "kept"), [(0.0, 10), (0.5, 5), (0.99, 1)])
def test_the_count_is_exact_however_many_scores_are_equal(prune_ratio, kept, tmp_path):
    seen = read(KeepHardest(file(tmp_path, [1.0] * 10), prune_ratio=prune_ratio), 10)
    # The loader repeats a sample rather than make a batch of one.
    assert {len(set(samples)) for samples in seen.values()} == {kept}
    assert len({frozenset(samples) for samples in seen.values()}) == 1


def test_a_resumed_run_is_the_uninterrupted_one_and_needs_the_file_no_more(tmp_path):
    """Half of the scores are equal, and which of these stay depends on the seed; the file is gone when it resumes."""
    path = file(tmp_path, (torch.arange(100) % 2).float())

    def run(**options):
        torch.manual_seed(0)
        model = classification()
        more = [] if options else [Snapshots(tmp_path)]
        trainer(max_epochs=3, callbacks=[KeepHardest(path, prune_ratio=0.2), *more]).fit(model, digits(), **options)
        return weights(model)

    whole = run()
    (tmp_path / "s").unlink()
    points = sorted(tmp_path.glob("1-*.ckpt"))
    assert points
    for point in points:
        resumed = run(ckpt_path=point)
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items()), point.stem


class Strings(Dataset):
    targets = ("cat", "dog", "cat", "cow")

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index, 0


def test_targets_that_are_no_classes_are_no_hindrance(tmp_path):
    seen = read(
        KeepHardest(file(tmp_path, [3.0, 1.0, 2.0, 0.0]), prune_ratio=0.5), 4, data=DataLoader(Strings(), 2, True)
    )
    assert {frozenset(samples) for samples in seen.values()} == {frozenset({0, 2})}


def test_files_of_different_kinds_are_not_averaged(tmp_path):
    files = [file(tmp_path, [1.0] * 4), file(tmp_path, [1.0] * 4, kind="Forgetting", name="f")]
    with pytest.raises(InputError, match=r"different kinds .*/s by EL2N, .*/f by Forgetting\): give files of one"):
        read(KeepHardest(files), 4)


@pytest.mark.parametrize(
    "scores",
    [torch.full((4,), math.nan), torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)],
    ids=["nan", "2d", "int"],
)
def test_files_without_a_score_of_each_sample_are_refused_and_named(scores, tmp_path):
    safetensors.torch.save_file({"scores": scores}, tmp_path / "s")
    with pytest.raises(InputError, match=f"{tmp_path}/s does not hold a score of each sample: make it by"):
        read(KeepHardest(str(tmp_path / "s")), 4)


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_run_with_a_wrong_file_names_it_and_trains_not_one_step(content, tmp_path):
    if content is None:
        safetensors.torch.save_file({"weight": torch.zeros(4)}, tmp_path / "s")
    else:
        (tmp_path / "s").write_bytes(content)
    model = Reader()
    data = DataLoader(TensorDataset(torch.arange(4), torch.zeros(4, dtype=torch.long)), 2)
    with pytest.raises(InputError, match=f"{tmp_path}/s is not a file of scores"):
        trainer(max_epochs=1, callbacks=[KeepHardest(str(tmp_path / "s"))]).fit(model, data)
    assert not model.read
