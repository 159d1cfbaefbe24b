import copy
import json
import re
from collections import namedtuple
from types import SimpleNamespace

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import (
    ATS,
    CRD,
    DIST,
    DKD,
    KD,
    LSKD,
    RKD,
    SP,
    AttentionTransfer,
    FitNet,
    LogitLoss,
    ReviewKD,
)
from lightning_recipes.modules.networks import create_network
from lightning_recipes.modules.objectives import Distillation
from torch import nn

IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def network(classes=3, **arguments):
    return create_network(
        "convnet", num_classes=classes, in_chans=1, network_args={"depth": 1, "width": 4, **arguments}, image_size=8
    )


def attached(*arguments, student=None, image_size=8, **options):
    objective = Distillation(*arguments, **options)
    objective.attach(student or network(), num_classes=3, in_chans=1, image_size=image_size)
    return objective


def test_is_the_weighted_sum_of_its_terms():
    teacher, student = network().eval(), network()
    objective = attached(teacher, ATS(3, 2), ce_weight=0.3, kd_weight=2.0, student=student)
    logits = student(IMAGES)
    losses, terms = objective.parts(logits, LABELS, objective.context(IMAGES, LABELS))
    ce = F.cross_entropy(logits, LABELS, reduction="none")
    kd = ATS(3, 2)(logits, teacher(IMAGES), LABELS)
    assert torch.equal(terms["ce"], ce)
    torch.testing.assert_close(terms["kd"], kd)
    torch.testing.assert_close(losses, 0.3 * ce + 2.0 * kd)
    torch.testing.assert_close(objective(logits, LABELS, objective.context(IMAGES, LABELS)), losses)


def test_label_smoothing_reaches_the_cross_entropy_alone():
    logits = network()(IMAGES)
    plain = attached(network(), DKD())
    smooth = attached(plain.teacher.network, DKD(), label_smoothing=0.3)
    (_, before), (losses, terms) = (one.parts(logits, LABELS, one.context(IMAGES, LABELS)) for one in (plain, smooth))
    torch.testing.assert_close(terms["ce"], 0.7 * before["ce"] - 0.3 * logits.log_softmax(1).mean(1))
    assert torch.equal(terms["kd"], before["kd"])
    torch.testing.assert_close(losses, terms["ce"] + terms["kd"])
    mixed = F.one_hot(LABELS, 3).float()
    other = attached(network(), KD(), label_smoothing=0.3, ce_weight=1.0)
    torch.testing.assert_close(other.parts(logits, mixed, other.context(IMAGES, mixed))[1]["ce"], terms["ce"])
    with pytest.raises(InputError, match=r"label_smoothing must be in .* but is 1"):
        Distillation(network(), label_smoothing=1.0)


def test_the_weight_of_the_loss_rises_over_its_warm_up():
    objective = attached(network(), DKD(), ce_weight=0.0, kd_weight=1.0, kd_warmup=4)
    logits, context = network()(IMAGES), objective.context(IMAGES, LABELS)
    shares = []
    for epoch in range(6):
        objective.epoch = epoch
        losses, terms = objective.parts(logits, LABELS, context)
        shares.append(float((losses / terms["kd"]).detach().mean()))
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_a_share_of_the_run_as_warm_up_shrinks_with_the_run():
    objective = attached(network(), DKD())
    logits, context = network()(IMAGES), objective.context(IMAGES, LABELS)

    def share(epoch, run_epochs):
        objective.epoch, objective.run_epochs = epoch, run_epochs
        losses, terms = objective.parts(logits, LABELS, context)
        return float(((losses - terms["ce"]) / terms["kd"]).detach().mean())

    assert [share(0, 240), share(18, 240), share(19, 240)] == pytest.approx([0.05, 0.95, 1], rel=1e-3)
    assert [share(0, 10), share(0, None)] == pytest.approx([1, 1], rel=1e-3)


def test_weights_are_those_of_the_losss_paper():
    layers = (["blocks.0"], ["blocks.0"])
    expected = [
        (KD(), 0.1, 0.9, 0),
        (ATS(), 0.5, 0.5, 0),
        (DKD(), 1, 1, 20 / 240),
        (DIST(), 1, 2, 0),
        (LSKD(), 0.1, 9, 0),
        (LSKD(DKD()), 1, 9, 20 / 240),
        (FitNet(*layers), 1, 100, 0),
        (AttentionTransfer(*layers), 1, 1000, 0),
        (ReviewKD(*layers), 1, 5, 20 / 240),
        (RKD(*layers), 1, 1, 0),
        (SP(*layers), 1, 3000, 0),
        (CRD(*layers, num_samples=100, negatives=50), 1, 0.8, 0),
    ]
    for loss, ce_weight, kd_weight, kd_warmup in expected:
        found = Distillation(network(), loss)
        assert (found.ce_weight, found.kd_weights, found.kd_warmups) == (ce_weight, [kd_weight], [kd_warmup]), loss
    given = Distillation(network(), DKD(), ce_weight=0.0, kd_weight=3.0, kd_warmup=0)
    assert (given.ce_weight, given.kd_weights, given.kd_warmups) == (0, [3], [0])


def test_the_help_says_the_weights_of_each_loss():
    text = " ".join(Distillation.__doc__.split())
    said = text[text.index("kd_weight: Weight of the loss") : text.index("kd_warmup: ")]
    for kind in (KD, ATS, DKD, DIST, LSKD, FitNet, AttentionTransfer, RKD, SP, ReviewKD, CRD):
        assert re.search(rf"\b{kind.__name__}\b[\w, ]* {kind.kd_weight:g}[;.]", said), kind


def test_several_losses_are_summed_by_their_weights():
    student = network()
    hints = [AttentionTransfer(["blocks.0"], ["blocks.0"]), FitNet(["blocks.0"], ["blocks.0"])]
    together = attached(network(), losses=[hints[0], KD(), hints[1], ATS()], student=student)
    assert (together.ce_weight, together.kd_weights) == (1, [1000, 0.9, 100, 0.5])
    context = together.context(IMAGES, LABELS)
    losses, terms = together.parts(student(IMAGES), LABELS, context)
    assert list(terms) == ["ce", "attentiontransfer", "kd", "fitnet", "ats"]
    assert not together.accepts_soft_labels
    total = terms["ce"] + 1000 * terms["attentiontransfer"] + 0.9 * terms["kd"] + 100 * terms["fitnet"]
    torch.testing.assert_close(losses, total + 0.5 * terms["ats"])
    for loss, name in ((hints[0], "attentiontransfer"), (KD(), "kd")):
        alone = attached(together.teacher.network, loss, student=student)
        context = alone.context(IMAGES, LABELS)
        torch.testing.assert_close(alone.parts(student(IMAGES), LABELS, context)[1]["kd"], terms[name])
    twice = attached(network(), KD(1.0), losses=[KD(4.0)], kd_weight=[1.0, 2.0])
    assert set(twice.parts(student(IMAGES), LABELS, twice.context(IMAGES, LABELS))[1]) == {"ce", "kd_1", "kd_2"}


def test_the_teacher_is_no_part_of_it():
    teacher = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3))
    for objective in (Distillation(teacher), attached(teacher)):
        assert list(objective.parameters()) == []
        assert objective.state_dict() == {}
        assert [module for module in objective.modules() if isinstance(module, nn.BatchNorm2d)] == []
        objective.train()
        assert not teacher.training
    assert copy.deepcopy(objective).teacher is objective.teacher


def test_the_teacher_moves_and_is_cast_with_it():
    teacher = network()
    holder = nn.ModuleDict({"objective": attached(teacher)})
    holder.to(torch.float64)
    assert {value.dtype for value in teacher.parameters()} == {torch.float64}
    assert holder["objective"].context(IMAGES.double(), LABELS).logits.dtype == torch.float64
    holder.to("meta")
    assert {value.device.type for value in teacher.parameters()} == {"meta"}


def test_a_teacher_in_half_precision_is_tried_in_it():
    assert attached(network().bfloat16()).context(IMAGES.bfloat16(), LABELS).logits.dtype == torch.bfloat16


def test_features_serve_as_often_as_they_are_asked_for():
    student = network()
    objective = attached(network(), AttentionTransfer(["blocks.0"], ["blocks.0"]), student=student)
    context = objective.context(IMAGES, LABELS)
    logits = student(IMAGES)
    assert torch.equal(objective(logits, LABELS, context), objective(logits, LABELS, context))


def test_a_regressor_is_trained_beside_the_student():
    student = network(width=5)
    objective = attached(network(), FitNet(["blocks.0"], ["blocks.0"]), kd_weight=100.0, student=student)
    shapes = [tuple(parameter.shape) for parameter in objective.parameters()]
    assert shapes == [(4, 5, 1, 1), (4,), (4,), (4,)]
    context = objective.context(IMAGES, LABELS)
    objective(student(IMAGES), LABELS, context).sum().backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_trying_layers_leaves_the_student_as_it_was():
    student = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), nn.Flatten(), nn.Linear(72, 3))
    student[0][1].eval()
    before = copy.deepcopy(student.state_dict())
    attached(network(), AttentionTransfer(["0"], ["blocks.0"]), student=student)
    assert [module.training for module in student.modules()] == [True, True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_a_layer_that_is_not_called_is_named():
    odd = network()
    odd.spare = nn.Conv2d(1, 1, 1)
    for names, argument in ((("spare", "blocks.0"), "student"), (("blocks.0", "spare"), "teacher")):
        with pytest.raises(InputError, match=f"{argument}_layers: the network does not call spare"):
            attached(copy.deepcopy(odd), FitNet(names[:1], names[1:]), student=odd)
    assert odd.training is False or all(module.training for module in odd.modules())


@pytest.mark.parametrize("loss", [KD(), LSKD(), DIST()])
def test_losses_that_do_not_look_at_labels_take_soft_ones(loss):
    objective = attached(network(), loss)
    assert objective.accepts_soft_labels
    soft = F.one_hot(LABELS, 3).float()
    logits, context = network()(IMAGES), objective.context(IMAGES, soft)
    torch.testing.assert_close(objective(logits, soft, context), objective(logits, LABELS, context))
    assert not Distillation(network(), LSKD(ATS())).accepts_soft_labels


def test_a_student_taught_by_its_like_learns_to_say_the_same():
    torch.manual_seed(0)
    teacher, student = network(width=16), network(width=16)
    objective = attached(teacher, KD(1.0), ce_weight=0.0, kd_weight=1.0)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    context = objective.context(IMAGES, LABELS)
    for _ in range(300):
        loss = objective(student(IMAGES), LABELS, context).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3


def test_wrong_arguments_are_refused_at_once():
    with pytest.raises(InputError, match="kd_weight must be at least 0, and finite, but is -1"):
        Distillation(network(), kd_weight=-1)
    with pytest.raises(InputError, match="ce_weight and kd_weight are both 0, which leaves nothing to learn"):
        Distillation(network(), ce_weight=0, kd_weight=0)
    for options, message in [
        (
            {"kd_warmup": 1.5},
            "kd_warmup must be at least 0, and a share of the run up to 1.0 or a whole number of epochs",
        ),
        ({"losses": [KD(), DKD()], "kd_weight": 1.0}, "kd_weight must have one value for each of 2 losses but is 1.0"),
    ]:
        with pytest.raises(InputError, match=message):
            Distillation(network(), **options)
    for wrong in (lambda: DKD(alpha=-1), lambda: DIST(gamma=float("inf"))):
        with pytest.raises(InputError, match="must be at least 0, and finite, but is"):
            wrong()
    with pytest.raises(InputError, match=r"cache c holds logits, but FitNet needs features: leave it out"):
        Distillation(network(), FitNet(["a"], ["b"]), cache="c")


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        (network(classes=4), {}, r"teacher BlockNetwork gives outputs of shape \(2, 4\) for 2 images, .*num_classes=3"),
        (nn.Identity(), {}, r"teacher Identity gives outputs of shape \(2, 1, 8, 8\)"),
        (nn.Linear(7, 3), {}, r"teacher Linear cannot take images of shape \(2, 1, 8, 8\)"),
        (network(), {"loss": FitNet(["x"], ["blocks.0"])}, "student_layers: BlockNetwork has no layer 'x'"),
        (network(), {"loss": FitNet(["blocks.0"], ["x"])}, "teacher_layers: BlockNetwork has no layer 'x'"),
        (network(), {"loss": FitNet(["classifier"], ["blocks.0"])}, r"layer classifier gives \('N', 3\), no feature"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten(), nn.Linear(2, 3)),
            {"loss": AttentionTransfer(["blocks.0"], ["0"])},
            "the maps of blocks.0 and its teacher's layer have one pixel in common",
        ),
        (
            network(),
            {"loss": FitNet(["blocks.0"], ["blocks.0"]), "image_size": None},
            "FitNet needs to know the size of images: give image_size",
        ),
    ],
)
def test_what_does_not_fit_is_refused_when_a_recipe_is_built(teacher, options, message):
    with pytest.raises(InputError, match=message):
        attached(teacher, **options)


def test_without_an_image_size_the_first_batch_tells():
    objective = attached(network(classes=4), image_size=None)
    with pytest.raises(ValueError, match=r"teacher_logits must have the shape of student_logits \(6, 3\) but got"):
        objective(network()(IMAGES), LABELS, objective.context(IMAGES, LABELS))


def test_a_loss_of_ones_own():
    class Distance(LogitLoss):
        def forward(self, student_logits, teacher_logits, labels):
            return (student_logits - teacher_logits).norm(dim=1)

    teacher = network().eval()
    objective = attached(teacher, Distance(), ce_weight=0.0, kd_weight=1.0)
    logits = network()(IMAGES)
    torch.testing.assert_close(
        objective(logits, LABELS, objective.context(IMAGES, LABELS)), (logits - teacher(IMAGES)).norm(dim=1)
    )


# -- teachers --------------------------------------------------------------------------------------------------------


class Answering(nn.Module):
    """A teacher whose answer holds its logits in another way."""

    def __init__(self, wrap):
        super().__init__()
        self.body = nn.Linear(64, 3)
        self.wrap = wrap

    def forward(self, pixel_values):
        return self.wrap(self.body(pixel_values.flatten(1)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: SimpleNamespace(logits=logits),
        lambda logits: {"logits": logits, "loss": None},
        lambda logits: (logits, {"feats": []}),
        lambda logits: [logits],
        lambda logits: namedtuple("Output", "logits aux_logits")(logits, None),
    ],
    ids=["attribute", "mapping", "tuple", "list", "named tuple"],
)
def test_logits_are_found_in_what_a_teacher_gives(wrap):
    teacher = Answering(wrap)
    assert torch.equal(answers(attached(teacher)), teacher.body(IMAGES.flatten(1)))


def test_a_teacher_without_logits_is_refused():
    with pytest.raises(InputError, match="teacher gives str and no logits"):
        attached(Answering(lambda logits: "cat"))


def test_the_student_cannot_teach_itself():
    student = network()
    for teacher in (student, nn.Sequential(student)):
        with pytest.raises(InputError, match=r"shares its weights with the student, .* give a copy"):
            attached(teacher, student=student)
    assert all(parameter.requires_grad for parameter in network().parameters())


def test_several_teachers_answer_by_their_mean(tmp_path):
    first, second = network().eval(), network(width=6).eval()
    mean = attached([first, second])
    torch.testing.assert_close(answers(mean), (first(IMAGES) + second(IMAGES)) / 2)
    weighted = attached([first, second], teacher_weights=[3.0, 1.0], cache=str(tmp_path))
    expected = 0.75 * first(IMAGES) + 0.25 * second(IMAGES)
    for _ in range(2):
        torch.testing.assert_close(answers(weighted), expected)
    weighted.close()
    torch.testing.assert_close(
        answers(attached([first, second], cache=str(tmp_path))), (first(IMAGES) + second(IMAGES)) / 2
    )
    assert list(mean.parameters()) == []
    mean.double()
    assert next(second.parameters()).dtype == torch.float64
    for arguments, message in [
        (([],), "teacher is an empty list"),
        (([first, second], FitNet(["a"], ["b"])), "2 teachers have no features in common"),
    ]:
        with pytest.raises(InputError, match=message):
            Distillation(*arguments)
    for options, message in [
        ({"teacher_weights": [1.0]}, "teacher_weights must be 2 numbers"),
        ({"teacher_weights": [1.0, -1.0]}, "teacher_weights must be 2 positive numbers"),
        ({"teacher_args": [{}]}, "teacher_args must be one for all 2 teachers or one each"),
    ]:
        with pytest.raises(InputError, match=message):
            Distillation([network(), network()], **options)


def test_features_may_be_those_of_a_teacher_of_other_classes():
    hint = FitNet(["blocks.0"], ["blocks.0"])
    assert attached(network(classes=7), hint).teacher_logits(IMAGES) is None
    with pytest.raises(InputError, match=r"gives outputs of shape \(2, 7\) for 2 images, .*num_classes=3"):
        attached(network(classes=7), losses=[hint, KD()])


def test_a_teacher_from_a_folder_of_timm(tmp_path):
    body = timm.create_model("resnet10t", num_classes=3).eval()
    safetensors.torch.save_file(body.state_dict(), tmp_path / "model.safetensors")
    facts = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 32, 32], "classifier": "fc", "num_classes": 3}
    facts["first_conv"] = "conv1.0"
    content = {"architecture": "resnet10t", "num_classes": 3, "pretrained_cfg": facts}
    (tmp_path / "config.json").write_text(json.dumps(content))
    images = torch.randn(2, 3, 32, 32)
    student = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    objective = Distillation(f"local-dir:{tmp_path}")
    objective.attach(student, num_classes=3, in_chans=3, image_size=32)
    objective.meet_data(mean=[0.4] * 3, std=[0.5] * 3)
    torch.testing.assert_close(
        answers(objective, images), body((images * 0.5 + 0.4 - 0.5) / 0.25), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(InputError, match="knows 3 classes, the student 4"):
        Distillation(f"local-dir:{tmp_path}").attach(student, num_classes=4, in_chans=3, image_size=32)
    with pytest.raises(InputError, match=r"a folder of timm's holds config.json"):
        Distillation("local-dir:nowhere").attach(student, num_classes=3, in_chans=3, image_size=32)


def test_a_transformer_gets_images_of_its_own_size():
    student = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    arguments = {"pretrained": False, "depth": 1, "embed_dim": 12, "num_heads": 1}
    objective = Distillation("vit_tiny_patch16_224", teacher_args=arguments)
    objective.attach(student, num_classes=3, in_chans=3, image_size=32)
    assert objective.teacher.image_size == 224


# -- cache -----------------------------------------------------------------------------------------------------------


def counted(teacher):
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    return calls


def answers(objective, images=IMAGES):
    return objective.context(images, LABELS).logits


def test_a_second_objective_needs_no_teacher(tmp_path):
    teacher = network()
    first = attached(teacher, cache=str(tmp_path))
    expected = answers(first)
    first.close()
    second = attached(teacher, DKD(), cache=str(tmp_path))
    calls = counted(teacher)
    assert torch.equal(answers(second), expected)
    assert calls == [1]  # images that are always the same, which tell whose cache it is
    answers(second, IMAGES + 1)
    assert calls == [1, 1]


def test_what_changes_the_answers_changes_the_cache(tmp_path):
    def pooled():
        return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))

    first, other = attached(pooled(), cache=str(tmp_path)), pooled()
    answers(first)
    first.close()
    assert torch.equal(answers(attached(other, cache=str(tmp_path))), other(IMAGES))
    resized = attached(first.teacher.network, cache=str(tmp_path), teacher_image_size=4)
    calls = counted(first.teacher.network)
    answers(first)
    assert calls == []
    answers(resized)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answers(first)
    assert calls == [1, 1, 1, 1]


class Sharper(nn.Module):
    """A teacher whose answers depend on more than its weights."""

    def __init__(self, body, factor):
        super().__init__()
        self.body = body
        self.factor = factor

    def forward(self, images):
        return self.body(images) * self.factor


def test_teachers_of_the_same_weights_have_caches_of_their_own(tmp_path):
    body = network().eval()
    for factor in (1.0, 5.0, 1.001, 1.0, 5.0):
        objective = attached(Sharper(body, factor), cache=str(tmp_path))
        torch.testing.assert_close(answers(objective), factor * body(IMAGES))
        objective.close()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3


def test_a_cache_that_cannot_be_is_refused_when_the_recipe_is_built(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cache .*file cannot be written to \(.*\): name another folder"):
        attached(network(), cache=str(tmp_path / "file"))


def test_an_epochs_answers_are_saved_when_the_next_begins(tmp_path):
    objective = attached(network(), cache=str(tmp_path))
    answers(objective)
    assert not list(tmp_path.rglob("*.safetensors"))
    objective.epoch = 1
    answers(objective)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
