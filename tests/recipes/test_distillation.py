"""Runs of `Classification` with a teacher."""

import pytest
import torch
from helpers import Snapshots, trainer, weights
from lightning.pytorch import Callback, LightningDataModule
from lightning_recipes.modules.artifacts.network_file import load_network, save_network
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import ATS, KD, AttentionTransfer, FitNet
from lightning_recipes.modules.networks import create_network
from lightning_recipes.modules.objectives import CrossEntropy, Distillation
from lightning_recipes.recipes import Classification
from settings import classification, digits, hinted, teacher
from torch import nn


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
    assert needed > 1
    assert needed_again == 1  # the images that tell whose cache it is
    assert run(ATS(), str(tmp_path))[1] == 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_features_survive_compiling(backend, monkeypatch):
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend=backend))

    def run(compiled, hinted=True):
        torch.manual_seed(0)
        hint = AttentionTransfer(["blocks.0"], ["blocks.0"])
        body = create_network(
            "convnet", num_classes=10, in_chans=1, network_args={"depth": 1, "width": 8}, image_size=8
        )
        loss = Distillation(body, hint if hinted else KD(), ce_weight=1.0, kd_weight=10.0)
        model = classification(objective=loss, image_size=8, compile=compiled)
        trainer(max_epochs=1).fit(model, digits())
        return weights(model)

    # For a like network torch takes what it compiled before, and does not look at hooks.
    run(True, hinted=False)
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


class Images(torch.utils.data.Dataset):
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return torch.zeros(1, 8, 8), self.labels[index]


class Named(LightningDataModule):
    """Images that are 0.4 in every pixel, normalised by mean 0.4 and std 0.2."""

    mean, std, class_names = (0.4,), (0.2,), ("a", "b", "c")

    def train_dataloader(self):
        return torch.utils.data.DataLoader(Images([0, 1, 2, 0]), 2)

    val_dataloader = train_dataloader


def saved_teacher(path, body, **facts):
    chosen = {"mean": [0.3], "std": [0.1], "class_names": list("abc"), **facts}
    name = {"name": "convnet", "network_args": {"depth": 1, "width": 4}}
    save_network(path, body, **name, num_classes=3, in_chans=1, image_size=8, **chosen)
    return str(path)


def small():
    return create_network("convnet", num_classes=3, in_chans=1, network_args={"depth": 1, "width": 4}, image_size=8)


def three_classes(objective, **arguments):
    return Classification(small(), 3, in_chans=1, image_size=8, objective=objective, **arguments)


def test_a_teacher_sees_images_by_its_own_mean_and_std_and_answers_in_the_datas_order(tmp_path):
    body = small().eval()
    file = saved_teacher(tmp_path / "t.safetensors", body, class_names=["b", "c", "a"])
    objective = Distillation(file)
    trainer(max_epochs=1).fit(three_classes(objective), datamodule=Named())
    pixels = torch.rand(4, 1, 8, 8)
    right = body((pixels - 0.3) / 0.1)[:, [2, 0, 1]]
    torch.testing.assert_close(objective.ask((pixels - 0.4) / 0.2).logits, right, rtol=1e-4, atol=1e-4)


def test_a_teacher_of_other_classes_is_refused_when_the_run_starts(tmp_path):
    file = saved_teacher(tmp_path / "t.safetensors", small(), class_names=["a", "b", "d"])
    with pytest.raises(InputError, match=r"trained on other classes than the data's, e.g. 'd' where the data has 'c'"):
        trainer(max_epochs=1).fit(three_classes(Distillation(file)), datamodule=Named())
    three_classes(Distillation(load_network(file)[0]))


def test_statistics_that_cannot_be_compared_are_said(tmp_path):
    objective = Distillation(saved_teacher(tmp_path / "t.safetensors", small()))
    three_classes(objective)
    with pytest.warns(UserWarning, match=r"t.safetensors was trained on images of mean \[0.3\] and std \[0.1\], and"):
        objective.context(torch.zeros(1, 1, 8, 8), None)


def test_a_checkpoint_says_what_its_images_were_normalised_by(tmp_path):
    arguments = {"in_chans": 1, "image_size": 8, "network_args": {"depth": 1, "width": 4}}
    first = Classification("convnet", 3, **arguments)
    run = trainer(max_epochs=1)
    run.fit(first, datamodule=Named())
    run.save_checkpoint(tmp_path / "t.ckpt")
    objective = Distillation(str(tmp_path / "t.ckpt"))
    three_classes(objective)
    assert (objective.teacher.mean, objective.teacher.std) == ([0.4], [0.2])


def test_the_teachers_accuracy_is_logged_once_with_the_first_validation():
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    body[1].bias.data = torch.tensor([9.0, 0.0, 0.0])
    objective, asked = Distillation(body), []
    objective.teacher_logits = lambda images: asked.append(objective.epoch) or objective.ask(images).logits
    run = trainer(max_epochs=3, num_sanity_val_steps=1)
    run.fit(three_classes(objective), datamodule=Named())
    assert asked == [0, 0]  # two batches
    assert run.callback_metrics["val/teacher_accuracy"] == 0.5
    # A teacher of other classes, whose features alone are asked for, has none.
    other = create_network("convnet", num_classes=7, in_chans=1, network_args={"depth": 1}, image_size=8)
    run = trainer(max_epochs=1)
    run.fit(three_classes(Distillation(other, FitNet(["blocks.0"], ["blocks.0"]))), datamodule=Named())
    assert "val/teacher_accuracy" not in run.callback_metrics


def test_what_a_run_does_not_reach_is_warned_of():
    for arguments, message in [
        (
            {"objective": Distillation(teacher(), KD(), kd_warmup=5)},
            "kd_warmup=5 is never reached in a run of 2 epochs",
        ),
        ({"mixup": 0.5, "mix_epochs": 5}, "mix_epochs=5 is never reached in a run of 2 epochs, so Mixup and CutMix"),
    ]:
        with pytest.warns(UserWarning, match=message):
            trainer(max_epochs=2).fit(classification(**arguments), digits())


def test_shares_of_a_run_given_in_steps(recwarn):
    model = classification(objective=Distillation(teacher(), KD(), kd_warmup=0.5), mixup=0.5, mix_epochs=0.5)
    batches = len(digits_batches())
    trainer(max_epochs=-1, max_steps=4 * batches).fit(model, digits())
    assert model.objective.run_epochs == 4
    assert not [warning for warning in recwarn if "never reached" in str(warning.message)]


def digits_batches():
    data = digits()
    data.setup("fit")
    return data.train_dataloader()
