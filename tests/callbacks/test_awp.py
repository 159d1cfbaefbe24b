"""AWP: where the weights go, that they come back, and that the first pass leaves no trace."""

import pytest
import torch
import torch.nn.functional as F
from helpers import trainer, weights
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_recipes.callbacks import AWP, InfoBatch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.objectives import CrossEntropy
from settings import adversarial, classification, digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

IMAGES = torch.randn(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 3


class Foreign(LightningModule):
    """A project of its own, with batch statistics; returns a dict."""

    def __init__(self, fails_at=None):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
        self.passes, self.seen, self.fails_at = 0, [], fails_at

    def training_step(self, batch, batch_idx):
        self.passes += 1
        self.seen.append({name: value.detach().clone() for name, value in self.network.named_parameters()})
        if self.passes == self.fails_at:
            raise RuntimeError("out of memory")
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.log("loss", loss)
        return {"loss": loss}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, weight_decay=0.01)

    def train_dataloader(self):
        return DataLoader(TensorDataset(IMAGES, LABELS), 16)


class BeforeStep(Callback):
    """Keeps the weights that the optimizer finds."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.weights = weights(module)


def test_the_step_is_taken_where_the_weights_are_at_their_worst():
    module, before = Foreign(), BeforeStep()
    start = weights(module)
    run = trainer(max_epochs=1, callbacks=[AWP(0.05), before])
    run.fit(module)
    fresh = Foreign()
    fresh.network.train()
    gradients = torch.autograd.grad(F.cross_entropy(fresh.network(IMAGES), LABELS), list(fresh.network.parameters()))
    moved = Foreign()
    for (name, weight), gradient in zip(moved.network.named_parameters(), gradients, strict=True):
        if weight.ndim > 1:
            weight.data += 0.05 * weight.norm() * gradient / gradient.norm()
        torch.testing.assert_close(module.seen[1][name], weight.detach())
    # The optimizer takes the gradient there and begins where the weights were.
    loss = F.cross_entropy(moved.network(IMAGES), LABELS)
    optimizer = torch.optim.SGD(fresh.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    for weight, gradient in zip(
        fresh.network.parameters(), torch.autograd.grad(loss, list(moved.network.parameters())), strict=True
    ):
        weight.grad = gradient
    optimizer.step()
    for name, weight in fresh.named_parameters():
        torch.testing.assert_close(module.get_parameter(name), weight, rtol=1e-5, atol=1e-6)
    assert loss > F.cross_entropy(Foreign().network(IMAGES), LABELS)
    parameters = dict(module.named_parameters())
    assert all(torch.equal(value, start[name]) for name, value in before.weights.items() if name in parameters)
    # Batch statistics and logs are of the second pass alone.
    assert module.network[1].num_batches_tracked == 1
    torch.testing.assert_close(module.network[1].running_mean, moved.network[1].running_mean)
    torch.testing.assert_close(run.callback_metrics["loss"], loss.detach())


def released_steps(number, weight_decay):
    """The weights after steps of the authors' algorithm: move, step, subtract the move."""
    module = Foreign()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9, weight_decay=weight_decay)
    for _ in range(number):
        buffers = {name: value.clone() for name, value in module.named_buffers()}
        names, values = zip(*module.named_parameters(), strict=True)
        gradients = torch.autograd.grad(F.cross_entropy(module.network(IMAGES), LABELS), values)
        for name, value in module.named_buffers():
            value.copy_(buffers[name])
        moves = {
            name: 0.05 * value.detach().norm() * gradient / gradient.norm()
            for name, value, gradient in zip(names, values, gradients, strict=True)
            if value.ndim > 1
        }
        for name, move in moves.items():
            module.get_parameter(name).data += move
        optimizer.zero_grad()
        F.cross_entropy(module.network(IMAGES), LABELS).backward()
        optimizer.step()
        for name, move in moves.items():
            module.get_parameter(name).data -= move
    return module


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_a_step_from_the_moved_weights_is_the_released_one(weight_decay):
    """By weight decay alone the two kinds of step differ."""
    found = []
    for step_from in ("moved", "weights"):
        module = Foreign()
        module.configure_optimizers = lambda m=module: torch.optim.SGD(
            m.parameters(), 0.1, momentum=0.9, weight_decay=weight_decay
        )
        run = trainer(max_epochs=3, callbacks=[AWP(0.05, step_from=step_from)])
        run.fit(module)
        assert not run.optimizers[0]._optimizer_step_post_hooks
        found.append(weights(module))
    expected = weights(released_steps(3, weight_decay))
    for name, value in expected.items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-5, atol=2e-6)
    difference = max((found[1][name] - value).abs().max() for name, value in expected.items() if value.ndim > 1)
    assert difference > 1e-4 if weight_decay else difference < 2e-6


def test_batches_without_a_step_put_moved_weights_back_bit_for_bit():
    class Starts(Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, trainer, module, *args):
            self.seen.append((trainer.global_step, weights(module)))

    torch.manual_seed(0)
    model, watch = classification(), Starts()
    before = weights(model)
    run = trainer(
        max_epochs=1, limit_train_batches=2, accumulate_grad_batches=2, callbacks=[AWP(step_from="moved"), watch]
    )
    run.fit(model, digits())
    assert [step for step, _ in watch.seen] == [0, 1]
    assert all(torch.equal(value, before[name]) for name, value in watch.seen[0][1].items())
    assert not torch.equal(watch.seen[1][1]["network.blocks.0.0.weight"], before["network.blocks.0.0.weight"])


@pytest.mark.parametrize("options", [{"gamma": 0.0}, {"gamma": 0.1, "first_epoch": 2}], ids=str)
def test_without_a_move_nothing_changes(options):
    found = []
    for callbacks in ([], [AWP(**options)]):
        torch.manual_seed(0)
        model = adversarial()
        trainer(max_epochs=2, callbacks=callbacks).fit(model, digits())
        found.append(weights(model))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_images_are_attacked_once_for_both_passes():
    model, attacks = adversarial(), []
    attack = model._attack
    model._attack = lambda *arguments: (attacks.append(1), attack(*arguments))[1]
    run = trainer(max_epochs=2, callbacks=[AWP(0.01)])
    run.fit(model, digits())
    assert len(attacks) == run.global_step == 6
    assert model._attacked is None


def test_means_of_an_epoch_are_of_the_second_passes():
    """With a weight tensor at its worst the loss is higher, and that is the loss that was minimised."""
    values = []
    for gamma in (0.0, 0.2):
        torch.manual_seed(0)
        model = classification()
        run = trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0, callbacks=[AWP(gamma)])
        run.fit(model, digits())
        values.append(float(run.callback_metrics["train/loss"]))
        ((_, count),) = model._means._sums.values()
    assert count == 32
    assert values[1] > values[0] + 0.05


def test_weights_come_back_when_a_pass_fails():
    module = Foreign(fails_at=2)
    start = weights(module)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(max_epochs=1, callbacks=[AWP(0.1)]).fit(module)
    assert not torch.equal(module.seen[1]["0.weight"], module.seen[0]["0.weight"])
    assert all(torch.equal(value, start[f"network.{name}"]) for name, value in module.network.named_parameters())
    assert "log" not in vars(module)


@pytest.mark.parametrize("order", [1, -1])
def test_weights_of_samples_hold_for_both_passes_in_any_order_of_the_callbacks(order):
    seen = []

    class Watched(CrossEntropy):
        def forward(self, logits, labels, context=None):
            if torch.is_grad_enabled():
                seen.append(None if model.sample_weights is None else model.sample_weights.clone())
            return super().forward(logits, labels, context)

    model = classification(objective=Watched())
    callbacks = [AWP(0.01), InfoBatch(delta=1.0)][::order]
    trainer(max_epochs=3, callbacks=callbacks).fit(model, digits())
    assert any(weights is not None and weights.max() > 1 for weights in seen)
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert (first is second is None) or torch.equal(first, second)


def test_a_gradient_without_a_direction_moves_nothing():
    """As half precision makes them: infinite for one weight, none for another."""

    class Infinite(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            return values.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient + torch.inf

    class Overflowing(Foreign):
        def training_step(self, batch, batch_idx):
            if self.passes == 0:
                hook = self.network[0].register_forward_hook(lambda layer, inputs, output: Infinite.apply(output))
            try:
                return super().training_step(batch, batch_idx)
            finally:
                if self.passes == 1:
                    hook.remove()

    module = Overflowing()
    trainer(max_epochs=1, callbacks=[AWP(0.05)]).fit(module)
    assert torch.equal(module.seen[1]["0.weight"], module.seen[0]["0.weight"])
    assert not torch.equal(module.seen[1]["4.weight"], module.seen[0]["4.weight"])
    assert all(torch.isfinite(value).all() for value in weights(module).values())


def test_weights_come_back_when_a_batch_is_left_out():
    """A module may end an epoch from its `on_train_batch_start`, which comes behind that of the callbacks."""

    class Ending(Foreign):
        def on_train_batch_start(self, batch, batch_idx):
            return -1

    module = Ending()
    start = {name: value.clone() for name, value in module.named_parameters()}
    trainer(max_epochs=2, callbacks=[AWP(0.05)]).fit(module)
    assert module.passes == 2
    assert all(torch.equal(value, start[name]) for name, value in module.named_parameters())


def test_metrics_of_the_module_count_each_batch_once():
    class Measured(Foreign):
        def __init__(self):
            super().__init__()
            self.accuracy = MulticlassAccuracy(3)
            self.losses = MeanMetric()

        def training_step(self, batch, batch_idx):
            output = super().training_step(batch, batch_idx)
            self.accuracy.update(self.network(batch[0]), batch[1])
            self.losses.update(output["loss"].detach())
            self.last = output["loss"].detach()
            return output

    module = Measured()
    trainer(max_epochs=1, callbacks=[AWP(0.05)]).fit(module)
    assert module.losses.weight == 1
    torch.testing.assert_close(module.losses.compute(), module.last)
    assert int(sum(getattr(module.accuracy, name) for name in ("tp", "fn")).sum()) == 16


def test_it_goes_before_checkpoints_and_moves_no_other(tmp_path):
    others = [InfoBatch(delta=1.0), ModelCheckpoint(tmp_path), BeforeStep()]
    run = trainer(max_epochs=1, callbacks=[AWP(0.01), *others], enable_checkpointing=True)
    before = [callback for callback in run.callbacks if callback in others]
    run.fit(classification(), digits())
    after = run.callbacks
    assert [callback for callback in after if callback in others] == before
    place = next(index for index, callback in enumerate(after) if isinstance(callback, AWP))
    assert after.index(others[0]) < place < after.index(others[1])


def test_a_second_one_is_refused():
    with pytest.raises(InputError, match="the callback AWP is given twice"):
        trainer(max_epochs=1, callbacks=[AWP(), AWP()]).fit(Foreign())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": -0.1}, "gamma must be at least 0, and finite, but is -0.1"),
        ({"first_epoch": -1}, "first_epoch must be at least 0 but is -1"),
        ({"step_from": "there"}, "step_from must be weights or moved but is 'there'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        AWP(**arguments)


def test_manual_optimization_is_refused():
    module = Foreign()
    module.automatic_optimization = False
    with pytest.raises(InputError, match="Foreign optimizes manually"):
        trainer(max_epochs=1, callbacks=[AWP()]).fit(module)
