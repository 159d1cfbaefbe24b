"""PredictionWriter, RunSummary and ImageProgressBar with a plain trainer and a stranger's module."""

import csv
import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning_recipes.callbacks import ImageProgressBar, PredictionWriter, RunSummary
from torch.utils.data import DataLoader, TensorDataset


class Stranger(pl.LightningModule):
    monitor = "score"
    monitor_mode = "min"

    def __init__(self, scores=(3.0, 1.0, 2.0)):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.scores = scores

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.log("score", self.scores[self.current_epoch], prog_bar=True)

    def predict_step(self, batch, batch_idx):
        return self.layer(batch[0]).softmax(1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def loader(number=10):
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(number, 4, generator=generator)), batch_size=4)


def trainer(*callbacks, **options):
    bar = any(isinstance(callback, ImageProgressBar) for callback in callbacks)
    return pl.Trainer(
        **{"max_epochs": 3, "accelerator": "cpu", "logger": False, "enable_model_summary": False} | options,
        enable_progress_bar=bar,
        callbacks=list(callbacks),
    )


def test_summary_counts_every_sample_and_knows_which_is_best(capsys):
    trainer(RunSummary("out", test="measure")).fit(Stranger(), loader(), loader())
    figures = json.loads(Path("out/summary.json").read_text())
    assert figures["best score"] == 1
    assert figures["last score"] == 2
    assert (figures["samples"], figures["optimizer steps"], figures["epochs"]) == (30, 9, 3)
    assert figures["trained parameters"] == 15
    out = capsys.readouterr().out
    # Without a monitored best checkpoint it is the last one that is measured.
    assert f"To test it:  measure --ckpt_path {figures['best checkpoint']}" in out


def test_summary_of_a_module_without_monitor_and_checkpoints(capsys):
    module = Stranger()
    module.monitor = None
    trainer(RunSummary("out", test="measure"), enable_checkpointing=False).fit(module, loader())
    figures = json.loads(Path("out/summary.json").read_text())
    assert figures["samples"] == 30
    assert not [name for name in figures if "score" in name]
    assert "measure" not in capsys.readouterr().out


def test_a_second_fit_is_summed_up_afresh():
    summary = RunSummary("out")
    for scores in ((0.0, 0.0, 0.0), (3.0, 2.0, 2.5)):
        trainer(summary, enable_checkpointing=False).fit(Stranger(scores), loader(), loader())
    figures = json.loads(Path("out/summary.json").read_text())
    assert (figures["best score"], figures["samples"]) == (2, 30)


def test_predictions_without_names_are_numbered():
    module = Stranger()
    trainer(PredictionWriter("out/predictions.csv")).predict(module, loader(), return_predictions=False)
    rows = list(csv.reader(Path("out/predictions.csv").read_text().splitlines()))
    assert rows[0] == ["file", "class", "0", "1", "2"]
    assert [row[0] for row in rows[1:]] == [str(index) for index in range(10)]
    expected = torch.cat([module.layer(batch[0]) for batch in loader()]).softmax(1)
    written = torch.tensor([[float(value) for value in row[2:]] for row in rows[1:]])
    torch.testing.assert_close(written, expected.detach(), atol=1e-5, rtol=1e-5)
    assert [int(row[1]) for row in rows[1:]] == expected.argmax(1).tolist()


def test_predictions_that_are_no_probabilities_are_refused():
    class Words(Stranger):
        def predict_step(self, batch, batch_idx):
            return ["cat"] * len(batch[0])

    with pytest.raises(ValueError, match="predict_step of Words must return class probabilities"):
        trainer(PredictionWriter("out/predictions.csv")).predict(Words(), loader(), return_predictions=False)


def test_bar_prints_one_line_per_epoch_where_there_is_no_terminal(capsys):
    trainer(ImageProgressBar()).fit(Stranger(), loader(), loader())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "score 3.0000" in lines[0]
    assert "loss " in lines[0]
    assert "images/s " in lines[0]
    assert "_step" not in lines[0]
    assert "_epoch" not in lines[0]


def test_bar_draws_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    trainer(ImageProgressBar(refresh_rate=1)).fit(Stranger(), loader(), loader())
    out = capsys.readouterr().out
    assert "images/s" in out
    assert "epoch 1/3" not in out


class Graph:
    """A batch that holds its tensor where nothing looks for it."""

    def __init__(self, x):
        self.x = x


def test_batches_without_a_tensor_to_count_do_not_end_the_run(capsys):
    class OfGraphs(Stranger):
        def training_step(self, batch, batch_idx):
            return self.layer(batch.x).square().mean()

    graphs = DataLoader([Graph(torch.ones(4)), Graph(torch.zeros(4))], batch_size=None)
    trainer(RunSummary("out"), ImageProgressBar()).fit(OfGraphs(), graphs)
    assert json.loads(Path("out/summary.json").read_text())["samples"] == 0
    out = capsys.readouterr().out
    assert "epoch 3/3" in out
    assert "images/s" not in out
