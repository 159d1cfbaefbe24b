import pytest
import torch
from lightning_recipes.modules.augmentation.siamese import SiameseAugmentation
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.sampling import isolated_rng
from lightning_recipes.modules.networks import create_network
from lightning_recipes.modules.synthetic.training import SmallSetTraining

IMAGES = torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(3).repeat_interleave(10)


def networks(number, norm="instance"):
    made = []
    for seed in range(number):
        with isolated_rng(seed):
            arguments = {"depth": 1, "width": 4, "norm": norm}
            made.append(create_network("convnet", num_classes=3, in_chans=1, network_args=arguments, image_size=8))
    return made


def augment(images, key):
    return SiameseAugmentation()(images, key, shared=False)


@pytest.mark.parametrize("function", [None, augment])
def test_several_networks_at_once_come_out_as_one_after_the_other(function):
    results = []
    for together in (False, True):
        nets = networks(3)
        training = SmallSetTraining(6, batch_size=16, together=together)
        training(nets, IMAGES, LABELS, seeds=[5, 6, 7], augment=function)
        results.append([torch.cat([w.detach().flatten() for w in net.parameters()]) for net in nets])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not torch.equal(results[0][0], results[0][1])


@pytest.mark.parametrize(("number", "expected"), [(30, True), (33, False)])
def test_small_steps_train_networks_together(monkeypatch, number, expected):
    called = []
    monkeypatch.setattr(SmallSetTraining, "_train_together", lambda *arguments: called.append(True))
    images, labels = IMAGES.repeat(2, 1, 1, 1)[:number], LABELS.repeat(2)[:number]
    SmallSetTraining(1)(networks(2), images, labels, seeds=[0, 1])
    assert bool(called) == expected


@pytest.mark.parametrize("together", [False, True])
def test_networks_learn_the_set(together):
    for norm in ("instance", "batch"):
        nets = networks(2, norm)
        state = torch.get_rng_state()
        SmallSetTraining(200, together=together)(nets, IMAGES, LABELS, seeds=[0, 1])
        assert torch.equal(torch.get_rng_state(), state)
        assert all((net(IMAGES).argmax(1) == LABELS).float().mean() > 0.9 for net in nets)
        assert not any(net.training for net in nets)


@pytest.mark.parametrize(("epochs", "full", "tenth"), [(1000, 502, 499), (300, 152, 149), (1, 2, 0)])
def test_rates_are_those_of_the_authors_loop(monkeypatch, epochs, full, tenth):
    """``range(epochs + 1)``, with a new optimizer after epoch ``epochs // 2 + 1``."""
    rates = []

    class Counted(torch.optim.SGD):
        def step(self):
            rates.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(torch.optim, "SGD", Counted)
    SmallSetTraining(epochs)(networks(1), IMAGES[:, :, :1, :1].expand(-1, -1, 8, 8)[:2], LABELS[:2], seeds=[0])
    assert rates == [0.01] * full + [0.001] * tenth


def test_dropout_follows_the_seed_and_not_the_global_generators():
    results = []
    for seed in (5, 5, 6):
        (net,) = networks(1)
        net.pool = torch.nn.Sequential(net.pool, torch.nn.Dropout(0.5))
        torch.manual_seed(len(results))
        state = torch.get_rng_state()
        SmallSetTraining(2, batch_size=30)([net], IMAGES, LABELS, seeds=[seed])
        assert torch.equal(torch.get_rng_state(), state)
        results.append(net.classifier.weight)
    assert torch.equal(results[0], results[1])
    assert not torch.allclose(results[0], results[2], atol=1e-4)  # the whole set at once: its order changes nothing


@pytest.mark.parametrize("arguments", [{"epochs": 0}, {"lr": 0}, {"momentum": 1}, {"batch_size": 0}])
def test_errors_name_the_argument(arguments):
    with pytest.raises(InputError, match=f"{next(iter(arguments))} must be"):
        SmallSetTraining(**arguments)
