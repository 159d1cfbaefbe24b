"""AutoAttack at the end of a test: which images, by which radius, and in two processes."""

import sys
from pathlib import Path

import pytest
import torch
from helpers import run_two_processes, trainer
from lightning.pytorch import LightningModule
from lightning_recipes.callbacks import AutoAttack, auto_attack
from lightning_recipes.modules.attacks import PGD, robustness
from lightning_recipes.modules.core.errors import InputError
from settings import adversarial, digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("pyautoattack")

IMAGES = 0.3 + 0.4 * torch.rand(24, 1, 6, 6, generator=torch.Generator().manual_seed(0))


class Linear(LightningModule):
    """A project of its own, whose images are pixels; it is right on all but the first six."""

    def __init__(self, soft=False):
        super().__init__()
        torch.manual_seed(1)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
        self.soft = soft

    def forward(self, images):
        return self.network(images)

    def labels(self):
        labels = self(IMAGES).argmax(1)
        labels[:6] = (labels[:6] + 1) % 5
        return labels

    def expected(self, eps):
        """Share of the images that no move of eps in each pixel makes wrong."""
        weight, labels = self.network[1].weight.detach(), self.labels()
        logits = self(IMAGES).detach()
        margin = logits.gather(1, labels[:, None]) - logits - eps * (weight[labels][:, None] - weight).abs().sum(-1)
        return (margin.masked_fill(torch.eye(5)[labels].bool(), 1) > 0).all(1).float()

    def test_step(self, batch, batch_idx):
        pass

    def test_dataloader(self):
        labels = self.labels()
        return DataLoader(TensorDataset(IMAGES, torch.eye(5)[labels] if self.soft else labels), 7)


def after_test(callback, model=None, **options):
    run = trainer(callbacks=[callback], **options)
    run.test(model or Linear(), verbose=False)
    return {name: float(value) for name, value in run.callback_metrics.items()}


@pytest.fixture
def attacked(monkeypatch):
    """The images that each test attacked."""
    seen = []

    def spy(network, images, labels, **options):
        seen.append(images)
        return robustness(network, images, labels, **options)

    monkeypatch.setattr(auto_attack, "robustness", spy)
    return seen


PIXELS = {"mean": [0.0], "std": [1.0]}


@pytest.mark.parametrize(("images", "counted"), [(None, 24), (10, 10), (100, 24)])
def test_a_strangers_module_and_how_many_images(images, counted, attacked, capsys):
    found = after_test(AutoAttack(images, eps=0.03, **PIXELS))
    chosen = [int((image == IMAGES).flatten(1).all(1).nonzero()) for image in attacked[0]]
    assert len(set(chosen)) == len(chosen) == counted
    expected = Linear().expected(0.03)[chosen].mean().item()
    assert 0.1 < expected < 0.9
    assert found["test/autoattack_accuracy"] == pytest.approx(expected)
    assert found["test/clean_accuracy"] == pytest.approx(sum(index >= 6 for index in chosen) / counted)
    assert found["test/masking_signs"] == 0
    output = capsys.readouterr().out
    assert f"on {counted} test images" in output
    assert f"accuracy under AutoAttack {expected:.4f}, clean" in output


def test_some_images_are_a_choice_of_all_classes_and_the_same_each_time(attacked):
    """Image folders are sorted by class, and the first images of one class would say nothing of the others."""
    model, labels = Linear(), torch.arange(4).repeat_interleave(60)
    model.test_dataloader = lambda: DataLoader(
        TensorDataset(labels[:, None, None, None] / 3.0 * torch.ones(6, 6), labels), 7
    )
    for _ in range(2):
        after_test(AutoAttack(80, eps=1e-6, **PIXELS), model)
    counts = (3 * attacked[0][:, 0, 0, 0]).round().long().bincount().tolist()
    # Hypergeometric: 20 of each class expected, with a standard deviation of 3.2.
    assert len(counts) == 4
    assert all(8 < count < 32 for count in counts)
    assert torch.equal(*attacked)


def test_radius_and_norm_are_those_of_the_attack_that_trained(capsys):
    model = adversarial()
    model.attack = PGD(0.07, 0.02, 3, norm="l2")
    run = trainer(callbacks=[AutoAttack(5)])
    run.test(model, digits(), verbose=False)
    assert "AutoAttack, l2, eps 0.0700, on 5 test images" in capsys.readouterr().out
    after_test(AutoAttack(5, **PIXELS))
    assert "AutoAttack, linf, eps 0.0314, on 5 test images" in capsys.readouterr().out


def test_two_processes_report_all_their_images(tmp_path):
    run_two_processes(Path(__file__), tmp_path)
    expected = Linear().expected(0.03)
    for rank in range(2):
        found, output = torch.load(tmp_path / f"{rank}.pt")
        assert found["test/autoattack_accuracy"] == pytest.approx(expected.mean().item())
        assert found["test/clean_accuracy"] == pytest.approx(18 / 24)
        assert ("on 24 test images" in output) == (rank == 0)
        assert (f"AutoAttack {expected.mean():.4f}, clean 0.7500" in output) == (rank == 0)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_precisions(precision):
    model = Linear()
    labels = model.labels()
    model.test_dataloader = lambda: DataLoader(TensorDataset(IMAGES, labels), 7)
    found = after_test(AutoAttack(eps=0.03, **PIXELS), model, precision=precision)
    assert found["test/clean_accuracy"] == pytest.approx(18 / 24, abs=0.1)


def test_labels_that_are_probabilities_are_refused():
    with pytest.raises(InputError, match="pairs of images"):
        after_test(AutoAttack(**PIXELS), Linear(soft=True))


def test_data_that_does_not_say_its_statistics_is_refused_before_the_test():
    model, seen = Linear(), []
    model.test_step = lambda *arguments: seen.append(1)
    with pytest.raises(InputError, match="does not say its mean and std: give AutoAttack's own"):
        after_test(AutoAttack(), model)
    assert seen == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0}, "images must be positive but is 0"),
        ({"eps": 0.0}, "eps must be positive but is 0.0"),
        ({"batch_size": -1}, "batch_size must be positive but is -1"),
        ({"norm": "l1"}, "norm must be linf or l2 but is 'l1'"),
        ({"mean": [0.5]}, r"mean and std must be given together, but they are \[0.5\] and None"),
        ({"mean": [0.5], "std": [1.0, 1.0]}, r"std \[1.0, 1.0\] must have one value for each of in_chans=1"),
        ({"mean": [0.5], "std": [0.0]}, "std must be positive"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        AutoAttack(**arguments)


def test_no_images_are_refused():
    callback = AutoAttack(**PIXELS)
    run = trainer(callbacks=[callback])
    with pytest.raises(InputError, match="AutoAttack found no test images"):
        callback.on_test_epoch_end(run, Linear())


if __name__ == "__main__":
    import contextlib
    import io

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        run = trainer(callbacks=[AutoAttack(eps=0.03, **PIXELS)], devices=2, strategy="ddp")
        run.test(Linear(), verbose=False)
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    torch.save((found, output.getvalue()), Path(sys.argv[1]) / f"{run.global_rank}.pt")
