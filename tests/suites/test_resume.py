"""Every technique, killed anywhere and resumed, ends with the same weights bit for bit."""

import pytest
import torch
from helpers import Snapshots, ids, trainer, weights
from settings import SETTINGS, VARIANTS


@pytest.mark.parametrize("setting", SETTINGS + VARIANTS, ids=ids)
def test_resumed_anywhere_equals_uninterrupted(setting, tmp_path):
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
    for point in points:
        torch.manual_seed(123)  # whatever the new process happened to be seeded with
        resumed = setting.model()
        trainer(max_epochs=3, callbacks=setting.callbacks()).fit(resumed, setting.data(), ckpt_path=point)
        if any(not torch.equal(value, expected[name]) for name, value in weights(resumed).items()):
            different.append(point.stem)
    assert different == []
