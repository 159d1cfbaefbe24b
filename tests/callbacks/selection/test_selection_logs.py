"""What a run that selects samples says about it: logged values, histogram, table at the end."""

import json

import pytest
import torch
from helpers import trainer
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning_recipes.callbacks import InfoBatch, RandomSubset, RunSummary
from settings import classification, digits


class EveryEpoch(Callback):
    """Keeps what was logged."""

    def __init__(self):
        self.logged = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(callback, *callbacks, **options):
    torch.manual_seed(0)
    run = trainer(max_epochs=3, callbacks=[callback, *callbacks], **options)
    run.fit(classification(), digits(subset=20, batch_size=20))
    return run


def test_share_kept_samples_saved_and_threshold_are_logged_each_epoch():
    callback, seen = InfoBatch(delta=1.0), EveryEpoch()
    fit(callback, seen)
    scores = callback.memory["scores"]
    kept = [values["selection/kept"] for values in seen.logged]
    assert kept[0] == 1
    assert all(0.5 < share < 1 for share in kept[1:])
    # Batches of 20, the last smaller one dropped.
    read = [int(share * 200 + 1e-6) // 20 * 20 for share in kept]
    saved = [values["selection/samples_saved"] for values in seen.logged]
    assert saved == [sum(200 - count for count in read[: epoch + 1]) for epoch in range(3)]
    assert "selection/threshold" not in seen.logged[0]
    assert 0 < seen.logged[2]["selection/threshold"] < float(scores.max())
    assert seen.logged[1]["selection/threshold"] != seen.logged[2]["selection/threshold"]


def test_forward_passes_saved_and_their_seconds_stand_in_the_table_of_the_run(tmp_path, capsys):
    fit(RandomSubset(0.5), RunSummary(str(tmp_path)))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["samples"] == 300
    assert summary["forward passes saved"] == 300
    assert summary["seconds saved by that"] == pytest.approx(300 / summary["training samples per second"], rel=0.02)
    assert "forward passes saved" in capsys.readouterr().out


def test_the_histogram_of_scores_goes_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = InfoBatch(delta=1.0)
    run = fit(callback, logger=TensorBoardLogger(str(tmp_path)), default_root_dir=str(tmp_path))
    events = (
        EventAccumulator(run.logger.log_dir, size_guidance={"histograms": 0}).Reload().Histograms("selection/scores")
    )
    assert len(events) == 3
    scores = callback.memory["scores"][callback.memory["scores"].isfinite()]
    last = events[-1].histogram_value
    assert last.num == sum(last.bucket) == len(scores)
    assert last.sum == pytest.approx(float(scores.sum()), rel=1e-4)
    assert last.bucket_limit[-1] == pytest.approx(float(scores.max()))


def test_the_histogram_of_scores_goes_to_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(save_dir=str(tmp_path))
    sent = []
    original = logger.experiment.log
    monkeypatch.setattr(logger.experiment, "log", lambda values, **options: (sent.append(values), original(values)))
    callback = InfoBatch(delta=1.0)
    fit(callback, logger=logger)
    logger.experiment.finish()
    histograms = [values["selection/scores"] for values in sent if "selection/scores" in values]
    assert [sum(histogram.histogram) for histogram in histograms] == [200, 200, 200]


def test_without_such_a_logger_nothing_is_drawn(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    run = fit(InfoBatch(delta=1.0), logger=CSVLogger(str(tmp_path)))
    assert "selection/kept" in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text()
    assert run.current_epoch == 3
