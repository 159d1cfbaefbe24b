"""A distilled set's file is scored by DD-Ranking 0.2.0, where it is installed."""

from __future__ import annotations

import math

import pytest
import torch
from lightning_recipes.modules.artifacts.synthetic_set import load_set, save_set

pytest.importorskip("ddranking", reason="DD-Ranking is not installed: pip install ddranking")


def test_the_hard_label_score_of_a_file(tmp_path, monkeypatch):
    from ddranking.metrics import hard_label

    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    file, _ = save_set(
        tmp_path, images, torch.arange(10).repeat_interleave(2), mean=mean, std=std, class_names=tuple("0123456789")
    )
    real = [(image, label) for label in range(10) for image in torch.randn(3, 3, 32, 32)]
    classes = {label: label for label in range(10)}
    # Its own data is a download.
    monkeypatch.setattr(
        hard_label, "get_dataset", lambda *_: (3, (32, 32), mean, std, 10, real, real, real, classes, classes)
    )
    # It writes each score twice, which are too many for its table.
    monkeypatch.setattr(hard_label, "save_results", lambda results, path: None)
    monkeypatch.setitem(hard_label.REAL_DATA_ACC_CACHE, "CIFAR10-ConvNet-3", 80.0)
    monkeypatch.chdir(tmp_path)
    distilled, labels, _ = load_set(file)
    score = hard_label.LabelRobustScoreHard(
        ipc=2, num_eval=1, num_epochs=10, num_workers=0, device="cpu", step_size=5, data_aug_func=None
    )
    found = score.compute_metrics(image_tensor=distilled, hard_labels=labels, syn_lr=0.01)
    recovery, gain = found["hard_label_recovery_mean"], found["improvement_over_random_mean"]
    assert 0 <= 80 - recovery <= 100
    wanted = (math.exp(gain / 2 - recovery / 2) - math.exp(-1)) / (math.e - math.exp(-1))
    assert found["label_robust_score_mean"] == pytest.approx(wanted)
