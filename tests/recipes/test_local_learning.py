"""Modules are trained apart, with as little memory as that allows, and the rest is as in Classification."""

import copy
import gc
from functools import partial

import pytest
import timm.optim
import torch
from helpers import trainer, weights
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning_recipes.callbacks import AWP
from lightning_recipes.modules.auxiliary import DGL, MAN, AugLocal, InfoPro
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import ATS, AttentionTransfer
from lightning_recipes.modules.objectives import CrossEntropy, Distillation
from lightning_recipes.recipes import Classification, LocalLearning
from lightning_recipes.recipes._module_losses import compiled
from settings import digits, local, teacher
from torch import nn
from torch.utils.checkpoint import checkpoint


def fit(model, *, data=None, callbacks=(), **options):
    run = trainer(**{"max_epochs": 2, "callbacks": list(callbacks), **options})
    run.fit(model, data or digits())
    return run


class Step(Callback):
    """Calls a function with the recipe when a step's gradients are there."""

    def __init__(self, look):
        self.look = look

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.look(pl_module)


def with_gradient(model):
    return {name for name, p in model.named_parameters() if p.grad is not None}


def test_one_module_is_classification_bit_for_bit():
    torch.manual_seed(0)
    arguments = {"in_chans": 1, "image_size": 8, "network_args": {"depth": 2, "width": 8}, "mixup": 0.5}
    plain = Classification("convnet", 10, **arguments)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    cut = LocalLearning("convnet", 10, num_modules=1, auxiliary=AugLocal(), **arguments)
    assert torch.equal(state, torch.get_rng_state())
    for model in (plain, cut):
        fit(model, gradient_clip_val=0.5)
    assert all(
        torch.equal(value, weights(plain)[name]) for name, value in weights(cut).items() if name in weights(plain)
    )
    assert list(plain.state_dict()) == list(cut.state_dict())


@pytest.mark.parametrize("index", [0, 1, 2])
def test_no_gradient_crosses_a_cut(index):
    model, seen = local(AugLocal(1, merge_last=False)), []
    learn, backward = model._learn, model.backward
    model._learn = lambda k, loss: learn(k, loss) if k == index else None
    model.backward = lambda loss: backward(loss) if index == 2 else None
    look = Step(lambda model: seen.append(with_gradient(model)))
    fit(model, callbacks=[look], limit_train_batches=1, max_epochs=1)
    assert seen == [set(model._groups[index])]
    own = (f"network.blocks.{index}", f"heads.{index}", *(["network.classifier"] if index == 2 else []))
    assert all(name.startswith(own) for name in seen[0])


def test_every_parameter_belongs_to_one_module_and_is_trained():
    model = local(AugLocal(1, merge_last=False))
    names = [name for group in model._groups for name in group]
    assert sorted(names) == sorted(dict(model.named_parameters()))
    before = weights(model)
    fit(model, max_epochs=1)
    assert all(not torch.equal(before[name], value) for name, value in weights(model).items() if name in names)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_steps_within_the_loop_equal_one_step_at_the_end(algorithm):
    results = []
    for step_per_module in (False, True):
        torch.manual_seed(0)
        model = local(AugLocal(1, merge_last=False), step_per_module=step_per_module)
        run = fit(model, gradient_clip_val=0.05, gradient_clip_algorithm=algorithm)
        assert run.global_step == 6
        results.append(weights(model))
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


class Live:
    """Bytes that autograd keeps at each moment, parameters left out."""

    def __init__(self, model):
        self.known = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.live, self.peak = {}, 0

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key in self.known:
            return lambda: tensor
        if not self.live.get(key, [0])[0]:  # memory may be used again by a storage of another size
            self.live[key] = [0, storage.nbytes()]
        self.live[key][0] += 1
        self.peak = max(self.peak, self.now)
        return _Kept(self, key, tensor.detach())

    @property
    def now(self):
        return sum(size for count, size in self.live.values() if count)


class _Kept:
    def __init__(self, live, key, tensor):
        self.owner, self.key, self.tensor = live, key, tensor

    def __call__(self):
        return self.tensor

    def __del__(self):
        self.owner.live[self.key][0] -= 1


def peak(depth, modules):
    """Peak of what autograd keeps for a network of equal blocks, and what is left of each module after its step."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(depth)]
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()), *blocks, nn.Flatten(), nn.Linear(512, 10)
    )
    model = LocalLearning(network, 10, auxiliary=DGL("linear"), num_modules=modules, in_chans=1, image_size=8)
    live, left = Live(model), []
    learn = model._learn

    def watched(index, loss):
        learn(index, loss)
        del loss
        gc.collect()
        left.append(live.now)

    model._learn = watched
    with torch.autograd.graph.saved_tensors_hooks(live.pack, lambda kept: kept()):
        fit(model, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    return live.peak, left


def test_a_modules_memory_is_free_before_the_next_begins():
    bytes_of_a_map = 32 * 8 * 8 * 8 * 4
    shallow, _ = peak(4, 5)
    deep, left = peak(8, 9)
    assert deep == shallow
    # What is left is the features that the loss of the loop still holds, less than a module's.
    assert all(size <= bytes_of_a_map for size in left)
    assert peak(8, 1)[0] > 2 * deep


def test_every_head_gets_the_objective_and_the_context_once_a_batch():
    class Counted(CrossEntropy):
        def context(self, images, labels):
            calls.append("context")
            return "known"

        def forward(self, logits, labels, context=None):
            assert context == "known"
            calls.append("loss")
            return super().forward(logits, labels)

    calls: list[str] = []
    fit(local(DGL("linear"), objective=Counted()), max_epochs=1, limit_val_batches=0)
    assert calls == ["context", "loss", "loss", "loss"] * 3


def test_weights_reach_every_head_and_scores_are_the_last_ones():
    class Half(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            pl_module.sample_weights = torch.zeros(len(batch[0]))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            logits = pl_module(batch[0])
            torch.testing.assert_close(
                pl_module.sample_losses, nn.functional.cross_entropy(logits, batch[1], reduction="none")
            )

    model = local(AugLocal(1, merge_last=False), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    before = weights(model)
    fit(model, callbacks=[Half()], limit_val_batches=0)
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())


def test_awp_moves_each_module_up_the_gradient_of_its_own_loss_and_for_the_whole_step():
    gradients, moved = {}, {}

    class Gradients(Callback):
        calls = 0

        def on_after_backward(self, trainer, pl_module):
            self.calls += 1
            gradients.update({n: p.grad.clone() for n, p in pl_module.named_parameters() if p.ndim > 1})

    start, look = local(DGL("linear")), Gradients()
    options = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 0}
    fit(copy.deepcopy(start), callbacks=[look], **options)
    assert look.calls == 1

    model = copy.deepcopy(start)
    for name, module in model.named_modules():

        def note(module, args, output, name=name):
            if not model.is_dry_run:
                moved.update({f"{name}.{n}": p.detach().clone() for n, p in module.named_parameters(recurse=False)})

        module.register_forward_hook(note)
    fit(model, callbacks=[AWP(0.1)], **options)
    assert len(gradients) == 3 + 2 + 1  # convolutions, heads, classifier
    for name, gradient in gradients.items():
        weight = start.get_parameter(name)
        expected = weight + 0.1 * weight.norm() * gradient / gradient.norm()
        torch.testing.assert_close(moved[name], expected, rtol=1e-4, atol=1e-6)


def test_evaluation_knows_nothing_of_the_heads():
    model = local(AugLocal(1, merge_last=False)).eval()
    images = torch.randn(3, 1, 8, 8)
    expected = model(images)
    for head in model.heads:
        for parameter in head.parameters():
            parameter.data.fill_(float("nan"))
    assert torch.equal(model(images), expected)
    assert not any(module._forward_hooks for module in model.network.modules())
    plain = Classification(copy.deepcopy(model.network), 10, in_chans=1)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("heads.")})
    one = LocalLearning(copy.deepcopy(model.network), 10, in_chans=1, num_modules=1)
    one.load_state_dict(model.state_dict())
    assert torch.equal(one.eval()(images), expected)


def test_each_module_is_clipped_by_itself():
    norms = []

    class Norms(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            pass

        def on_train_batch_end(self, trainer, pl_module, *args):
            norms.append(
                [
                    torch.stack([p.grad.norm() for p in pl_module.module_parameters(k) if p.grad is not None])
                    .norm()
                    .item()
                    for k in range(3)
                ]
            )

    fit(local(AugLocal(1, merge_last=False)), gradient_clip_val=0.01, callbacks=[Norms()], max_epochs=1)
    assert all(norm == pytest.approx(0.01, rel=1e-3) for step in norms for norm in step)


def test_accumulated_batches_equal_one_large_batch():
    results = []
    for batch_size, accumulate in ((32, 1), (16, 2)):
        torch.manual_seed(0)
        model = local(AugLocal(1, merge_last=False))
        run = fit(model, data=digits(batch_size=batch_size, subset=10), accumulate_grad_batches=accumulate)
        assert run.global_step == 6
        results.append(weights(model))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=1e-6)


def test_an_overflow_in_one_module_skips_the_step_of_all_and_lowers_the_scale_once():
    """The step after it has the size it should have, in every module."""

    class FirstFails(Callback):
        def __init__(self, overflow):
            self.overflow, self.scales = overflow, []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.before = weights(pl_module)
            self.first = batch_idx == 0
            bias = pl_module.network.blocks[0][0].bias
            hook = bias.register_hook(lambda gradient: gradient / (0 if self.first and self.overflow else 1))
            self.remove = hook.remove

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if self.first and not self.overflow:
                optimizer.zero_grad()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.remove()
            self.step = {name: value - self.before[name] for name, value in weights(pl_module).items()}
            if self.first:
                assert all((step == 0).all() for step in self.step.values())
            if self.overflow:
                self.scales.append(trainer.precision_plugin.scaler.get_scale())

    start, steps = local(DGL("linear"), optimizer=lambda p: torch.optim.SGD(p, lr=0.1), lr_scheduler=None), []
    for overflow in (True, False):
        look = FirstFails(overflow)
        half = [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0))] if overflow else []
        options = {"plugins": half, "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 0}
        fit(copy.deepcopy(start), callbacks=[look], **options)
        assert look.scales == ([4.0, 4.0] if overflow else [])
        steps.append(look.step)
    for name, step in steps[1].items():
        torch.testing.assert_close(steps[0][name], step, rtol=0.05, atol=2e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"auxiliary": None}, "auxiliary must be given"),
        ({"auxiliary": AugLocal}, "auxiliary must be a kind of head"),
        ({"image_size": None}, "image_size must be given"),
        ({"image_size": 0}, "image_size must be given, .* but is 0"),
        ({"num_modules": 4}, "num_modules must lie in 1..3"),
        ({"units_per_module": 0}, "units_per_module must be at least 1"),
        ({"auxiliary": AugLocal(2)}, "no cut is left"),
        ({"mean": [0.0, 0.0]}, "one value for each"),
        ({"units": ["classifier"]}, "end no unit before the logits"),
        ({"units": []}, "end no unit before the logits"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_built(arguments, message):
    arguments = dict(arguments)
    with pytest.raises(InputError, match=message):
        local(arguments.pop("auxiliary", DGL("linear")), **arguments)


@pytest.mark.parametrize(("modules", "blocks"), [(2, [6]), (4, [2, 6, 10]), (8, [0, 2, 4, 6, 8, 10, 12])])
def test_modules_of_a_number_end_where_infopros_authors_end_them(modules, blocks):
    model = LocalLearning("cifar_resnet32", 10, auxiliary=DGL("linear"), num_modules=modules, image_size=32)
    assert model._cuts == [f"blocks.{block}" for block in blocks]


def test_units_of_ones_own_end_modules():
    units = ["blocks.11", "blocks.25", "blocks.39", "blocks.53"]
    model = LocalLearning("cifar_resnet110", 10, auxiliary=DGL("linear"), units=units, image_size=32)
    assert model.num_modules == 4
    assert model._cuts == units[:3]


def test_features_of_the_whole_network_are_refused():
    loss = AttentionTransfer(student_layers=["blocks.0"], teacher_layers=["blocks.0"])
    other = local(DGL("linear")).network
    with pytest.raises(InputError, match="features of the whole network"):
        local(DGL(), objective=Distillation(other, loss))
    local(DGL(), objective=Distillation(teacher(), ATS()))


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 2}])
def test_steps_within_the_loop_refuse_what_looks_at_all_gradients(options):
    with pytest.raises(InputError, match="step_per_module"):
        fit(local(DGL("linear"), step_per_module=True), **options)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (AWP(), "does not go with AWP, which looks"),
        (GradientAccumulationScheduler({1: 2}), "does not go with GradientAccumulationScheduler"),
    ],
)
def test_steps_within_the_loop_refuse_callbacks_between_the_gradients_and_the_step(callback, message):
    with pytest.raises(InputError, match=message):
        fit(local(DGL("linear"), step_per_module=True), callbacks=[callback])


class Blocks(nn.Module):
    """A stem and blocks, called as ``kind`` says."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(3))
        self.classifier = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            if self.kind == "skip" and index == 1:
                continue
            if self.kind in ("reentrant", "checkpointed") and self.training:
                x = checkpoint(block, x, use_reentrant=self.kind == "reentrant")
            else:
                x = block(x)
            if self.kind == "noise":
                x = nn.functional.dropout(x, 0.5, self.training)
        return self.classifier(x.mean((2, 3)))


def blocks(kind="plain", **arguments):
    torch.manual_seed(0)
    arguments = {"auxiliary": DGL("linear"), "in_chans": 1, "image_size": 8, **arguments}
    return LocalLearning(Blocks(kind), 10, **arguments)


@pytest.mark.parametrize(
    "build",
    [
        lambda: local(AugLocal(1, merge_last=False), mixup=0.5),
        lambda: local(MAN(DGL("linear"))),
        lambda: LocalLearning("cifar_resnet8", 10, auxiliary=InfoPro(), num_modules=3, in_chans=1, image_size=8),
        lambda: LocalLearning("cifar_wrn_16_2", 10, auxiliary=DGL("cnn"), in_chans=1, image_size=8),
    ],
)
def test_a_chain_of_units_is_trained_unit_by_unit_bit_for_bit_as_with_hooks(build):
    results = []
    for chain in (True, False):
        torch.manual_seed(0)
        model, called = build(), []
        assert model._is_chain
        model.network.forward = lambda x, forward=model.network.forward, model=model, called=called: (
            called.append(model.training) or forward(x)
        )
        if not chain:
            model._layers, model._is_chain = [], False
        fit(model, max_epochs=1)
        # Training does not run the network as a whole, evaluation does.
        assert (True in called, False in called) == (not chain, True)
        results.append(weights(model))
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "cifar_resnet32", "cifar_wrn_16_2", "convnet", "cifar_vgg8"])
def test_plain_networks_are_chains(name):
    with torch.device("meta"):
        model = LocalLearning(name, 10, auxiliary=DGL("linear"), image_size=64)
    assert model._is_chain


def test_computations_between_units_in_training_alone_are_not_left_out():
    assert not blocks("noise")._is_chain
    model = blocks()
    fit(model, max_epochs=1)
    assert not model._is_chain  # the mean is no layer


def test_a_hook_around_units_is_still_called():
    model, seen = local(DGL("linear")), []
    model.network.blocks.register_forward_hook(lambda *args: seen.append(model.training))
    fit(model, max_epochs=1, limit_val_batches=0)
    assert seen == [True] * 3
    model, shapes = local(DGL("linear")), []
    model.register_forward_hook(lambda module, args, logits: shapes.append(tuple(logits.shape)))  # as EL2N does
    fit(model, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    assert shapes.count((32, 10)) >= 1


@pytest.mark.parametrize("chain", [True, False])
def test_a_layer_that_is_replaced_after_the_cutting_is_trained(chain):
    model = local(DGL("linear")) if chain else blocks()
    assert model._is_chain == chain
    model.network.blocks[0] = copy.deepcopy(model.network.blocks[0])
    before = weights(model)
    fit(model, max_epochs=1)
    assert all(not torch.equal(before[name], value) for name, value in weights(model).items() if "weight" in name)
    assert model.trainer.callback_metrics["train/local_loss_0"] > 0


def test_parameters_under_new_names_stay_with_their_module():
    model = local(DGL("linear"))
    nn.utils.parametrizations.weight_norm(model.network.blocks[1][0])
    assert "network.blocks.1.0.parametrizations.weight.original0" in model._groups[1]
    fit(model, gradient_clip_val=0.05, max_epochs=1)


def test_a_step_that_passes_a_module_by_is_an_error():
    model = blocks()
    model.network.kind = "skip"
    with pytest.raises(InputError, match=r"only 2 of 3 modules .* the layer blocks\.1"):
        fit(model, max_epochs=1)


@pytest.mark.parametrize(
    ("kind", "message"), [("reentrant", "reaches blocks.0.0.weight: switch"), ("checkpointed", "run twice")]
)
def test_checkpointed_blocks_are_an_error(kind, message):
    with pytest.raises(InputError, match=message):
        fit(blocks(kind), max_epochs=1)


def test_frozen_modules_are_passed_through():
    model = blocks()
    for frozen in (model.network.stem, model.network.blocks[0]):
        frozen.requires_grad_(False)
    before = weights(model)
    fit(model, max_epochs=1)
    for name, value in weights(model).items():
        if "weight" in name:
            assert torch.equal(before[name], value) == name.startswith(("network.stem", "network.blocks.0"))


@pytest.mark.parametrize("name", ["Lamb", "Adan", "Lookahead"])
def test_steps_within_the_loop_refuse_optimizers_that_look_across_parameters(name):
    def optimizer(parameters):
        if name == "Lookahead":
            return timm.optim.Lookahead(torch.optim.SGD(parameters, lr=0.01))
        return getattr(timm.optim, name)(parameters, lr=0.01)

    local(DGL("linear"), optimizer=optimizer)
    with pytest.raises(InputError, match=f"step_per_module does not go with {name}"):
        local(DGL("linear"), optimizer=optimizer, step_per_module=True)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.NAdam, torch.optim.Adafactor])
def test_steps_within_the_loop_accept_optimizers_that_keep_to_each_parameter(optimizer):
    results = []
    for step_per_module in (False, True):
        torch.manual_seed(0)
        model = local(
            DGL("linear"), optimizer=lambda p: optimizer(p, lr=0.01), lr_scheduler=None, step_per_module=step_per_module
        )
        fit(model, max_epochs=1)
        results.append(weights(model))
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_steps_within_the_loop_refuse_what_all_modules_share():
    class Scaled(CrossEntropy):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    with pytest.raises(InputError, match="step_per_module does not go with Scaled, as all modules train"):
        local(DGL("linear"), objective=Scaled(), step_per_module=True)
    model = LocalLearning("cifar_resnet8", 10, auxiliary=DGL("linear"), in_chans=1, image_size=8, step_per_module=True)
    with pytest.raises(InputError, match="StochasticWeightAveraging and batch normalization"):
        fit(model, callbacks=[StochasticWeightAveraging(0.05)])


def test_mean_and_std_come_from_the_datamodule_unless_they_are_given():
    data, seen = digits(), []
    for arguments in ({}, {"mean": [0.31], "std": [0.38]}):
        model = local(InfoPro(), **arguments)
        fit(model, data=data, max_epochs=1)
        seen.append((model.mean.flatten().tolist(), model.std.flatten().tolist()))
    assert seen[0] == (pytest.approx(list(data.mean)), pytest.approx(list(data.std)))
    assert seen[1] == (pytest.approx([0.31]), pytest.approx([0.38]))


def test_images_that_are_no_pixels_are_refused_by_heads_that_rebuild_them():
    images = torch.randn(32, 1, 8, 8)
    loader = torch.utils.data.DataLoader([(images, torch.arange(32) % 10)], batch_size=None)
    with pytest.raises(InputError, match=r"rebuild pixels in \[0, 1\], but \d\d% of a batch lie outside"):
        trainer(max_epochs=1).fit(local(InfoPro()), loader)
    trainer(max_epochs=1).fit(local(DGL("linear")), loader)


def test_each_head_logs_its_loss():
    model = local(DGL("linear"), optimizer=lambda p: torch.optim.SGD(p, lr=0.0), lr_scheduler=None)
    logged = fit(model, max_epochs=1, limit_train_batches=1).callback_metrics
    each = [float(logged[f"train/local_loss_{index}"]) for index in range(2)]
    assert float(logged["train/local_loss"]) == pytest.approx(sum(each) / 2)
    assert each[0] != each[1]
    assert "train/local_loss_2" not in logged


@pytest.mark.parametrize(("modules", "ends"), [(2, [6]), (4, [2, 6, 10]), (8, [0, 2, 4, 6, 8, 10, 12])])
def test_modules_of_blocks_alone_end_where_mans_authors_end_them(modules, ends):
    model = LocalLearning(
        "cifar_resnet32", 10, auxiliary=MAN(), units=[r"blocks\.\d+"], num_modules=modules, image_size=32
    )
    assert model._cuts == [f"blocks.{block}" for block in ends]


@pytest.mark.parametrize(
    "build",
    [
        lambda **options: local(AugLocal(1, merge_last=False), **options),
        lambda **options: local(MAN(InfoPro()), objective=Distillation(teacher(), ATS()), **options),
    ],
)
def test_each_unit_is_compiled_with_its_head_as_one_function(build, monkeypatch):
    """Dynamo's graph without breaks, run without code generation, which needs a compiler."""
    compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    results, runs = [], []
    for compile_ in (False, True):
        torch.manual_seed(0)
        model = build(compile=compile_)
        fit(model, max_epochs=1, limit_val_batches=1)
        results.append(weights(model))
        runs.append(compiled.cache_info().currsize)
    assert runs == [0, model.num_modules]
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())
    compiled.cache_clear()


def test_compile_is_off_for_a_network_that_is_no_chain():
    with pytest.warns(UserWarning, match="compile is off"):
        model = blocks(compile=True)
    fit(model, max_epochs=1, limit_val_batches=0)


def test_narrower_units_owe_no_halving():
    arguments = {"image_size": 16, "in_chans": 1, "network_args": {"widths": (64, 16, 32, 64)}}
    model = LocalLearning("cifar_resnet14", 10, auxiliary=AugLocal(2, merge_last=False), **arguments)
    # Behind the stem of 64 channels: to 32, no halving, then to 64, one.
    strides = [[block.conv1.stride for block in head.layers if hasattr(block, "conv1")] for head in model.heads]
    assert strides[0] == [(1, 1), (2, 2)]
