"""Runs of `Classification` with a teacher."""

import pytest
import torch
from helpers import Snapshots, trainer, weights
from lightning.pytorch import Callback
from lightning_recipes.modules.errors import InputError
from lightning_recipes.modules.losses import ATS, KD, AttentionTransfer, FitNet
from lightning_recipes.modules.networks import create_network
from lightning_recipes.modules.objectives import CrossEntropy, Distillation
from lightning_recipes.recipes import Classification
from settings import classification, digits, hinted, teacher


def trained(objective, epochs=2, data=None, **options):
    torch.manual_seed(0)
    model = classification(objective=objective)
    run = trainer(max_epochs=epochs, **options)
    run.fit(model, data or digits())
    return model, run


def same(one, other):
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_without_weight_for_the_teacher_it_is_cross_entropy_bit_for_bit():
    plain, _ = trained(CrossEntropy())
    distilled, _ = trained(Distillation(teacher(), KD(), ce_weight=1.0, kd_weight=0.0))
    assert same(plain, distilled)
    other, _ = trained(Distillation(teacher(), KD()))
    assert not same(plain, other)


def test_checkpoint_and_optimizer_are_those_of_the_student_alone(tmp_path):
    found = []
    for objective in (CrossEntropy(), Distillation(teacher(), KD())):
        model, run = trained(objective)
        run.save_checkpoint(tmp_path / "c.ckpt")
        held = sum(p.numel() for group in run.optimizers[0].param_groups for p in group["params"])
        found.append((list(torch.load(tmp_path / "c.ckpt")["state_dict"]), held, len(list(model.parameters()))))
    assert found[0] == found[1]


def test_terms_are_logged_unweighted():
    _, run = trained(Distillation(teacher(), ATS(), ce_weight=0.5, kd_weight=2.0), log_every_n_steps=1)
    logged = run.callback_metrics
    for stage in ("train", "val"):
        torch.testing.assert_close(
            logged[f"{stage}/loss"], 0.5 * logged[f"{stage}/ce"] + 2.0 * logged[f"{stage}/kd"], rtol=1e-5, atol=1e-5
        )
    assert {"train/ce_step", "train/kd_step"} <= set(logged)


def test_the_teacher_is_cast_with_the_run():
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append(module.objective.teacher.network[1].weight.dtype)

    trained(Distillation(teacher(), KD()), precision="bf16-true", callbacks=[Look()])
    assert set(seen) == {torch.bfloat16}


def test_mixed_images_need_a_loss_that_takes_soft_labels():
    with pytest.raises(
        InputError, match=r"mixup=0\.8 and cutmix=0\.0 make soft labels, which Distillation with ATS cannot take"
    ):
        classification(objective=Distillation(teacher(), ATS()), mixup=0.8)
    model = classification(objective=Distillation(teacher(), KD()), mixup=0.8, cutmix=1.0)
    run = trainer(max_epochs=1)
    run.fit(model, digits())
    assert torch.isfinite(run.callback_metrics["train/loss"])


def test_labels_that_a_loss_cannot_take_are_refused_in_the_first_batch():
    class Soft(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return torch.zeros(1, 8, 8), torch.full((10,), 0.1)

    loader = torch.utils.data.DataLoader(Soft(), 4)
    with pytest.raises(InputError, match=r"class indices \(N,\) for Distillation with ATS but have shape \(4, 10\)"):
        trainer(max_epochs=1).fit(classification(objective=Distillation(teacher(), ATS())), loader)


def test_a_checkpoints_loss_is_that_of_its_epoch(tmp_path):
    _, run = trained(Distillation(teacher(), KD(), kd_warmup=5), epochs=3, callbacks=[Snapshots(tmp_path)])
    fresh = classification(objective=Distillation(teacher(), KD(), kd_warmup=5))
    again = trainer()
    again.validate(fresh, digits(), ckpt_path=tmp_path / "2-9-epoch.ckpt", verbose=False)
    torch.testing.assert_close(again.callback_metrics["val/loss"], run.callback_metrics["val/loss"])


def test_a_student_with_a_regressor_does_without_it_later(tmp_path):
    taught = hinted(FitNet, 0.1)
    saved = taught.state_dict()
    alone = classification()
    alone.load_state_dict(saved)
    assert all(torch.equal(value, saved[name]) for name, value in alone.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        hinted(FitNet, 0.1).load_state_dict(alone.state_dict())


@pytest.mark.parametrize("augmented", [False, True])
def test_a_cache_changes_nothing_and_spares_the_teacher(augmented, tmp_path):
    """With augmentation replayed from the seed as well as without any, for another loss and student too."""
    options = {} if augmented else {"crop_padding": 0, "cutout": 0}

    def run(loss, cache):
        objective = Distillation(teacher(), loss, ce_weight=0.5, kd_weight=0.5, cache=cache)
        passes = []
        objective.teacher.network.register_forward_hook(lambda *_: passes.append(1))
        model, _ = trained(objective, data=digits(**options))
        return model, len(passes)

    plain, _ = run(KD(), None)
    first, needed = run(KD(), str(tmp_path))
    second, needed_again = run(KD(), str(tmp_path))
    assert same(plain, first)
    assert same(plain, second)
    assert needed > 0
    assert needed_again == 0
    assert run(ATS(), str(tmp_path))[1] == 0


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_features_survive_compiling(backend):
    # What was compiled before in this process, of a like network without hooks, torch would take again.
    torch._dynamo.reset()

    def run(compiled):
        torch.manual_seed(0)
        hint = AttentionTransfer(["blocks.0"], ["blocks.0"])
        body = create_network(
            "convnet", num_classes=10, in_chans=1, network_args={"depth": 1, "width": 8}, image_size=8
        )
        model = classification(objective=Distillation(body, hint, ce_weight=1.0, kd_weight=10.0), image_size=8)
        if compiled:
            model.network.compile(backend=backend)
        trainer(max_epochs=1).fit(model, digits())
        return weights(model)

    plain, compiled = run(False), run(True)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5)


def test_a_recipe_taught_by_a_checkpoint_of_another(tmp_path):
    arguments = {"in_chans": 1, "image_size": 8, "network_args": {"depth": 1, "width": 8}}
    first = Classification("convnet", 10, **arguments)
    run = trainer(max_epochs=3)
    run.fit(first, digits())
    run.save_checkpoint(tmp_path / "teacher.ckpt")
    student = Classification("convnet", 10, **arguments, objective=Distillation(str(tmp_path / "teacher.ckpt")))
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(student.objective.context(images, None).logits, first.eval()(images))
