"""Adversarial training: what the network sees, what is minimised, and what becomes of batch statistics."""

import pytest
import torch
import torch.nn.functional as F
from helpers import trainer, weights
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning_recipes.callbacks import AWP
from lightning_recipes.datamodules import Digits
from lightning_recipes.modules.attacks import NFGSM, PGD
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import AttentionTransfer, mart_loss
from lightning_recipes.modules.networks import create_network
from lightning_recipes.modules.objectives import LTD, Distillation
from lightning_recipes.recipes import AdversarialClassification, Classification
from lightning_recipes.recipes.cli.default_callbacks import BestAndLast
from settings import adversarial, classification, digits, teacher
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

PIXELS = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(32) % 10


def normalised(network=None, seed=0, **arguments):
    """A recipe with batch normalisation, for images of mean 0.5 and deviation 0.25."""
    torch.manual_seed(seed)
    if network is None:
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    arguments = {"attack": PGD(0.1, 0.05, 3, start="image"), **arguments}
    return AdversarialClassification(network, 10, in_chans=1, mean=[0.5], std=[0.25], **arguments)


def step(model):
    """Logits, losses and terms of a training batch of natural images, and the attacked images."""
    model.is_dry_run = True  # keeps them
    logits, losses, terms = model._training_losses((PIXELS - 0.5) / 0.25, LABELS)
    return logits, losses, terms, model._attacked


def test_without_a_radius_it_is_classification_bit_for_bit():
    found = []
    for kind, options in ((Classification, {}), (AdversarialClassification, {"attack": PGD(eps=0.0)})):
        torch.manual_seed(0)
        model = kind(classification().network, 10, in_chans=1, **options)
        # Pixels, so that nothing is rounded on the way to the attack and back.
        run = trainer(max_epochs=2, limit_val_batches=0)
        run.fit(model, DataLoader(TensorDataset(PIXELS, LABELS), 16))
        found.append((weights(model), run.callback_metrics["train/loss"]))
    assert all(torch.equal(value, found[1][0][name]) for name, value in found[0][0].items())
    assert found[0][1] == found[1][1]


def test_images_move_in_pixel_units_and_the_network_sees_them_normalised():
    model, seen = normalised(), []
    model.network.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0].detach()))
    logits, losses, _, attacked = step(model)
    change = (attacked - PIXELS).abs()
    assert change.max() <= 0.1 + 1e-6
    assert change.mean() > 0.05
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    torch.testing.assert_close(seen[-1], (attacked - 0.5) / 0.25)
    torch.testing.assert_close(losses, F.cross_entropy(logits, LABELS, reduction="none"))


def test_the_attack_is_pgd_on_the_network_in_evaluation_mode():
    model = normalised()
    for _ in range(3):  # batch statistics that differ from those of the running means
        model.network(torch.randn(32, 1, 8, 8) + 1)
    inner = nn.Sequential(Shift(), model.network)
    expected = PGD(0.1, 0.05, 3, start="image")(inner, PIXELS, LABELS)
    torch.testing.assert_close(step(model)[3], expected, rtol=0, atol=1e-5)


class Shift(nn.Module):
    def forward(self, pixels):
        return (pixels - 0.5) / 0.25


@pytest.mark.parametrize("batch_norm", ["alternate", "shared", "dual"])
def test_trades_adds_the_divergence_of_attacked_from_natural(batch_norm):
    """Cross-entropy of natural images + beta KL(natural || attacked), as in the paper's equation 5."""
    model = normalised(trades_beta=6.0, attack_loss="cross_entropy", batch_norm=batch_norm)
    logits, losses, terms, attacked = step(model)
    images = torch.cat([PIXELS, attacked]).sub(0.5).div(0.25)
    other = normalised().network
    if batch_norm == "shared":
        natural, adversarial_logits = other(images).chunk(2)
    else:
        natural, adversarial_logits = other(images[:32]), other(images[32:])
    kl = F.kl_div(adversarial_logits.log_softmax(1), natural.softmax(1), reduction="batchmean")
    torch.testing.assert_close(losses.mean(), F.cross_entropy(natural, LABELS) + 6 * kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["divergence"].mean(), kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, adversarial_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_norm", ["alternate", "repeated", "shared", "dual"])
def test_mart_is_its_loss_of_attacked_and_natural_logits(batch_norm):
    model = normalised(mart_beta=5.0, batch_norm=batch_norm)
    assert model.attack_loss == "cross_entropy"
    logits, losses, terms, attacked = step(model)
    images = torch.cat([PIXELS, attacked]).sub(0.5).div(0.25)
    other = normalised().network
    if batch_norm == "shared":
        natural, adversarial_logits = other(images).chunk(2)
    else:
        natural, adversarial_logits = other(images[:32]), other(images[32:])
    torch.testing.assert_close(logits, adversarial_logits, rtol=1e-4, atol=1e-5)
    expected = mart_loss(adversarial_logits, natural, LABELS, beta=5.0)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert set(terms) >= {"margin", "divergence"}
    parameters = [list(network.parameters()) for network in (model.network, other)]
    gradients = [
        torch.autograd.grad(value.mean(), own) for value, own in zip((losses, expected), parameters, strict=True)
    ]
    # The natural images of "dual" have norms of their own, whose gradients are not the network's.
    for ours, theirs in zip(*gradients, strict=True) if batch_norm != "dual" else []:
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_mart_begins_beside_the_image_and_refuses_soft_labels():
    model = normalised(mart_beta=5.0, attack=None)
    assert model.attack.start == "gaussian"
    data = TensorDataset(PIXELS, F.one_hot(LABELS, 10).float())
    with pytest.raises(InputError, match=r"labels must be class indices \(N,\) for MART but have shape \(16, 10\)"):
        trainer(max_epochs=1, limit_val_batches=0).fit(model, DataLoader(data, 16))


def test_gradients_of_trades_flow_through_both_images():
    model = normalised(trades_beta=6.0, attack_loss="cross_entropy")
    model.batch_norm = "shared"
    logits = []
    model.network.register_forward_hook(lambda network, inputs, output: logits.append(output))
    losses = step(model)[1]
    (gradient,) = torch.autograd.grad(losses.sum(), logits[-1])
    natural, attacked = gradient.chunk(2)
    ce = logits[-1].chunk(2)[0].softmax(1) - F.one_hot(LABELS, 10)
    assert (natural - ce).abs().max() > 1e-3
    assert attacked.abs().max() > 1e-3


def test_trades_attacks_by_divergence_from_beside_the_image():
    model = normalised(trades_beta=6.0, attack=None)
    assert (model.attack.start, model.attack_loss) == ("gaussian", "divergence")
    assert (model.eval_attack.start, model.eval_attack.steps) == ("uniform", 20)
    model = normalised(trades_beta=6.0, attack=PGD(0.1, 0.02, 5, start="gaussian"))
    _, _, _, attacked = step(model)
    network = nn.Sequential(Shift(), model.network).eval()
    natural, found, random = (
        network(images).log_softmax(1)
        for images in (PIXELS, attacked, (PIXELS + 0.1 * torch.randn(32, 1, 8, 8).sign()).clamp(0, 1))
    )
    divergence = [F.kl_div(images, natural, reduction="batchmean", log_target=True) for images in (found, random)]
    assert divergence[0] > 3 * divergence[1]


def test_ltd_has_the_labels_of_the_clean_image():
    seen = []
    expert = teacher()
    expert.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0].clone()))
    model = normalised(objective=LTD(expert, temperature=2.0))
    images = (PIXELS - 0.5) / 0.25
    logits, losses, terms, _ = step(model)
    assert [len(batch) for batch in seen] == [32]
    torch.testing.assert_close(seen[0], images)
    torch.testing.assert_close(losses, -((expert(images) / 2).softmax(1) * logits.log_softmax(1)).sum(1))
    assert torch.equal(terms["soft"], losses)


def test_the_objective_can_be_what_the_attack_raises():
    arguments = {"objective": LTD(teacher(), temperature=5.0)}
    by_labels, by_objective = (
        step(normalised(attack_loss=kind, **arguments))[1].mean() for kind in ("cross_entropy", "objective")
    )
    assert by_objective > by_labels


def test_scores_of_samples_are_their_adversarial_losses():
    model, found = adversarial(), {}
    original = model._training_losses

    def watched(images, labels):
        logits, losses, terms = original(images, labels)
        found["attacked"] = F.cross_entropy(logits, labels, reduction="none").detach()
        found["natural"] = F.cross_entropy(model(images), labels, reduction="none").detach()
        return logits, losses, terms

    model._training_losses = watched
    trainer(max_epochs=1, limit_train_batches=1).fit(model, digits())
    torch.testing.assert_close(model.sample_losses, found["attacked"])
    assert (model.sample_losses > found["natural"]).float().mean() > 0.9


# -- batch statistics ------------------------------------------------------------------------------------------------


def statistics(images, momentum=0.1):
    """Running mean and variance after these batches, from the start."""
    layer = normalised().network[:2].train()
    for batch in images:
        layer(batch)
    return layer[1].running_mean, layer[1].running_var


@pytest.mark.parametrize("batch_norm", ["alternate", "repeated", "shared", "dual"])
def test_which_images_the_batch_statistics_are_of(batch_norm):
    model = normalised(trades_beta=6.0, batch_norm=batch_norm)
    attacked = (step(model)[3] - 0.5) / 0.25
    natural = (PIXELS - 0.5) / 0.25
    batches = {
        "alternate": [natural, attacked],
        "repeated": [natural, attacked, natural],
        "shared": [torch.cat([natural, attacked])],
        "dual": [attacked],
    }
    layer = model.network[1]
    expected = statistics(batches[batch_norm])
    assert layer.num_batches_tracked == len(batches[batch_norm])
    torch.testing.assert_close((layer.running_mean, layer.running_var), expected)
    if batch_norm == "dual":
        second = model.natural_norm.layers[0]
        torch.testing.assert_close((second.running_mean, second.running_var), statistics([natural]))


def test_dual_norms_are_both_trained_saved_and_left_out_of_the_network():
    model = normalised(trades_beta=6.0, batch_norm="dual")
    before = model.natural_norm.layers[0].weight.detach().clone()
    run = trainer(max_epochs=1, limit_val_batches=0)
    run.fit(model, DataLoader(TensorDataset((PIXELS - 0.5) / 0.25, LABELS), 16))
    assert not torch.equal(model.natural_norm.layers[0].weight, before)
    assert not torch.equal(model.natural_norm.layers[0].weight, model.network[1].weight)
    assert "natural_norm.layers.0.running_mean" in model.state_dict()
    assert set(model.network.state_dict()) == set(normalised().network.state_dict())


def test_attacks_leave_no_trace_in_batch_statistics():
    model = normalised()
    attacked = (step(model)[3] - 0.5) / 0.25
    assert model.network[1].num_batches_tracked == 1
    torch.testing.assert_close(model.network[1].running_mean, statistics([attacked])[0])


# -- evaluation ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def robust_and_plain():
    """Two networks of one start after 8 epochs, and their accuracies at eps 0.1."""
    results = []
    for eps in (0.1, 0.0):
        torch.manual_seed(0)
        data = Digits(batch_size=32, subset=30, seed=0)
        network = create_network(
            "convnet", num_classes=10, in_chans=1, network_args={"depth": 1, "width": 16}, image_size=8
        )
        attack = PGD(eps, 0.03, 5)
        model = AdversarialClassification(network, 10, in_chans=1, mean=data.mean, std=data.std, attack=attack)
        model.eval_attack = PGD(0.1, 0.025, 20)
        run = trainer(max_epochs=8)
        run.fit(model, data)
        results.append((model, dict(run.callback_metrics)))
    return results


def test_adversarial_training_makes_robust(robust_and_plain):
    (_, robust), (_, plain) = robust_and_plain
    assert robust["val/robust_accuracy"] > plain["val/robust_accuracy"] + 0.15
    assert min(robust["val/accuracy"], plain["val/accuracy"]) > 0.85
    for logged in (robust, plain):
        assert logged["val/robust_accuracy"] < logged["val/accuracy"]
        assert logged["val/robust_loss"] > logged["val/loss"]


def test_stronger_attacks_leave_less(robust_and_plain):
    model, logged = robust_and_plain[0]
    accuracies = []
    for attack in (PGD.fgsm(0.1), PGD(0.1, 0.025, 20), PGD(0.1, 0.025, 60), PGD(0.2, 0.05, 20), PGD(1.0, 0.1, 30)):
        model.eval_attack = attack
        run = trainer()
        run.validate(model, Digits(batch_size=32, subset=30, seed=0), verbose=False)
        accuracies.append(float(run.callback_metrics["val/robust_accuracy"]))
        assert run.callback_metrics["val/accuracy"] == logged["val/accuracy"]
    assert accuracies[0] >= accuracies[1] >= accuracies[2] - 0.01
    assert accuracies[1] == pytest.approx(float(logged["val/robust_accuracy"]), abs=1e-6)
    assert accuracies[2] > accuracies[3] >= accuracies[4]
    assert accuracies[4] < 0.1


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (PGD(0.2, 0.02, 10, start="gaussian", restarts=2), (0.2, 0.02, 7, "uniform", 2)),
        (PGD.fgsm(0.2), (0.2, 0.05, 7, "uniform", 1)),
        (PGD(0.2, 0.25, 1, mode="unchanged"), (0.2, 0.05, 7, "uniform", 1)),
        (NFGSM(0.2), (0.2, 0.05, 7, "uniform", 1)),
    ],
    ids=["pgd", "fgsm", "fgsm-rs", "n-fgsm"],
)
def test_evaluation_is_by_the_attack_with_fine_steps_from_random_starts(attack, expected):
    found = normalised(attack=attack, eval_steps=7).eval_attack
    assert (found.eps, found.step_size, found.steps, found.start, found.restarts) == pytest.approx(expected)
    assert attack.steps != 7
    assert (type(found), found.mode) == (PGD, "evaluation")


def test_the_best_checkpoint_is_the_most_robust(tmp_path):
    """Of runs whose natural accuracy rises while their robust accuracy falls, the first epoch is kept."""
    model = adversarial()
    kept = BestAndLast(str(tmp_path), filename="best", monitor=model.monitor, mode=model.monitor_mode)
    robust = [0.5, 0.3, 0.2]

    class Scores(Callback):
        def on_validation_epoch_end(self, trainer, module):
            module.log("val/robust_accuracy", robust[trainer.current_epoch])
            module.log("val/accuracy", 1 - robust[trainer.current_epoch])

    model.robust_accuracy = None
    model._evaluate = lambda *arguments: None
    trainer(max_epochs=3, callbacks=[Scores(), kept], enable_checkpointing=True).fit(model, digits())
    assert torch.load(tmp_path / "best.ckpt")["epoch"] == 0


def test_tests_are_attacked_too(robust_and_plain):
    model, run = robust_and_plain[0][0], trainer()
    model.eval_attack = PGD(0.1, 0.025, 5)
    run.test(model, Digits(batch_size=32), verbose=False)
    assert 0.2 < run.callback_metrics["test/robust_accuracy"] < run.callback_metrics["test/accuracy"]


# -- averages of weights ---------------------------------------------------------------------------------------------


class FirstStep(Callback):
    """Keeps the weights that the first step left."""

    def on_train_batch_end(self, trainer, module, *args):
        if trainer.global_step == 1:
            self.weights = weights(module)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_an_average_without_memory_is_the_last_weights_and_one_without_news_the_first(decay):
    models = []
    first = FirstStep()
    for averaging in ([EMAWeightAveraging(decay=decay)], [first]):
        torch.manual_seed(0)
        models.append(adversarial())
        trainer(max_epochs=2, callbacks=[AWP(0.01), *averaging]).fit(models[-1], digits())
    expected = weights(models[1]) if decay == 0 else first.weights
    assert all(torch.equal(value, expected[name]) for name, value in weights(models[0]).items())


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trades_beta": -1}, "trades_beta must be at least 0, and finite, but is -1"),
        ({"trades_beta": float("nan")}, "trades_beta must be at least 0, and finite, but is nan"),
        ({"mart_beta": -1}, "mart_beta must be at least 0, and finite, but is -1"),
        ({"mart_beta": 5.0, "trades_beta": 6.0}, "trades_beta 6.0 and mart_beta 5.0 are two methods"),
        ({"mart_beta": 5.0, "mixup": 0.2}, "mart_beta 5.0 needs class indices, but mixup and cutmix make soft labels"),
        ({"batch_norm": "both"}, "batch_norm must be alternate, repeated, shared or dual but is 'both'"),
        (
            {"batch_norm": "dual"},
            "batch_norm dual is for training on natural and attacked images, but trades_beta is 0 and mart_beta too",
        ),
        ({"attack_loss": "kl"}, "attack_loss must be one of cross_entropy, divergence, objective but is 'kl'"),
        ({"attack": PGD(targeted=True)}, "attack is targeted"),
        ({"eval_steps": 0}, "eval_steps must be at least 1 but is 0"),
        (
            {"network": classification().network, "trades_beta": 1, "batch_norm": "dual"},
            "BlockNetwork has no batch norm",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        normalised(**arguments)


def test_statistics_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"mean \[0.5\] must have one value for each of in_chans=3 channels"):
        AdversarialClassification("convnet", 10, image_size=8, mean=[0.5], std=[0.25])
    with pytest.raises(InputError, match=r"std \[0.25, 1\] must have one value for each of in_chans=1"):
        AdversarialClassification("convnet", 10, in_chans=1, image_size=8, mean=[0.5], std=[0.25, 1])
    with pytest.raises(InputError, match=r"std must be positive but is \[0\]"):
        AdversarialClassification("convnet", 10, in_chans=1, image_size=8, mean=[0.5], std=[0])


def test_images_that_are_no_pixels_are_refused_by_their_first_batch():
    model = AdversarialClassification(classification().network, 10, in_chans=1, mean=[0.0], std=[1.0])
    with pytest.raises(InputError, match=r"must be the range of the pixels, but a val batch has pixels from -0\.8.*"):
        trainer(max_epochs=1, num_sanity_val_steps=1).fit(model, digits())


def test_mean_and_std_come_from_the_datamodule():
    model, data = AdversarialClassification(classification().network, 10, in_chans=1), digits()
    trainer(max_epochs=1, limit_train_batches=1).fit(model, data)
    assert model.mean.item() == pytest.approx(data.mean[0])
    assert model.std.item() == pytest.approx(data.std[0])


def test_a_weak_attack_is_warned_of():
    with pytest.warns(UserWarning, match="attack.steps 2 of attack.step_size 0.1 do not reach attack.eps 0.5"):
        normalised(attack=PGD(0.5, 0.1, 2))


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_precisions(precision):
    model = adversarial()
    run = trainer(max_epochs=1, precision=precision, limit_train_batches=2)
    run.fit(model, digits())
    assert torch.isfinite(run.callback_metrics["val/robust_loss"])


@pytest.mark.parametrize(
    "arguments", [{"attack_loss": "objective"}, {"trades_beta": 1.0, "batch_norm": "shared"}], ids=str
)
def test_losses_of_features_need_a_pass_of_their_own(arguments):
    loss = AttentionTransfer(student_layers=["blocks.0"], teacher_layers=["blocks.0"])
    objective = Distillation(classification().network, loss, ce_weight=1.0, kd_weight=10.0)
    with pytest.raises(InputError, match="which reads features of a pass over the natural images alone"):
        adversarial(objective=objective, image_size=8, **arguments)


@pytest.mark.parametrize("trades_beta", [0.0, 3.0])
def test_losses_of_features_read_the_pass_of_the_training_images(trades_beta):
    loss = AttentionTransfer(student_layers=["blocks.0"], teacher_layers=["blocks.0"])
    torch.manual_seed(0)
    objective = Distillation(classification().network, loss, ce_weight=0.0, kd_weight=1.0)
    model = adversarial(objective=objective, image_size=8, trades_beta=trades_beta)
    data = Digits()
    images = (PIXELS - data.mean[0]) / data.std[0]
    model.is_dry_run = True
    _, _, terms = model._training_losses(images, LABELS)
    seen = images if trades_beta else model._normalised(model._attacked)
    features = [net.blocks[0](x) for net, x in ((model.network, seen), (objective.teacher.network, images))]
    torch.testing.assert_close(terms["kd"], loss([features[0]], [features[1]]))
