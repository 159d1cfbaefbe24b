"""Every technique, killed anywhere and resumed, ends with the same weights bit for bit."""

import pytest
import torch
from helpers import Snapshots, ids, trainer, weights
from settings import SETTINGS, VARIANTS


def first_of_each_kind(points):
    """Of the second epoch: after its first step, after validation and after its end."""
    return [point for point in points if point.stem.startswith("1-") and not point.stem.endswith("batch")] + [
        next(point for point in points if point.stem.startswith("1-") and point.stem.endswith("batch"))
    ]


@pytest.mark.parametrize(
    "choose", [first_of_each_kind, pytest.param(list, marks=pytest.mark.product)], ids=["some", "all"]
)
@pytest.mark.parametrize("setting", SETTINGS + VARIANTS, ids=ids)
def test_resumed_anywhere_equals_uninterrupted(setting, choose, tmp_path):
    torch.manual_seed(0)
    model = setting.model()
    start = weights(model)
    run = trainer(max_epochs=3, callbacks=[*setting.callbacks(), Snapshots(tmp_path)])
    run.fit(model, setting.data())
    expected = weights(model)
    assert any(not torch.equal(start[name], expected[name]) for name in start)

    points = sorted(tmp_path.glob("*.ckpt"))
    assert len(points) == run.global_step + 3 * (1 + 1)
    different = []
    for point in choose(points):
        torch.manual_seed(123)  # whatever the new process happened to be seeded with
        resumed = setting.model()
        trainer(max_epochs=3, callbacks=setting.callbacks()).fit(resumed, setting.data(), ckpt_path=point)
        if any(not torch.equal(value, expected[name]) for name, value in weights(resumed).items()):
            different.append(point.stem)
    assert different == []
