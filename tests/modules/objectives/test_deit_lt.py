from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import trainer
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import class_balanced_weights
from lightning_recipes.modules.networks import create_network
from lightning_recipes.modules.objectives import DeiTLT
from lightning_recipes.recipes import Classification
from settings import digits, teacher, two_headed
from torch import nn


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


TEACHER = double([[4, 2, 1, 0, -1], [0.5, 3, 2.5, -0.5, 1]])
STUDENT = double([[2, 1.5, 0, 0.5, -0.5], [1, 2, 0, 0.5, -1]])
LABELS = torch.tensor([0, 1])
IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def said(objective, labels=LABELS):
    """Mean loss, mean class term and mean distillation term, for heads that give STUDENT and its mirror image."""
    objective.student = SimpleNamespace(take=lambda: [STUDENT, STUDENT.flip(1)])
    losses, terms = objective.parts(STUDENT, labels, SimpleNamespace(logits=TEACHER))
    return [float(values.mean()) for values in (losses, terms["cls"], terms["dist"])]


def objective(**arguments):
    return DeiTLT(nn.Linear(2, 5), **{"label_smoothing": 0.0, **arguments})


def test_worked_numbers():
    assert said(objective()) == pytest.approx([1.64542643, 0.64542643, 2.64542643], abs=5e-9)
    reweighted = objective(drw_epoch=0)
    reweighted._weights = double([0.5, 1, 2, 1, 0.5])
    assert said(reweighted)[0] == pytest.approx(1.55026168, abs=5e-9)
    reweighted.alpha = 1.0
    assert said(reweighted)[0] == pytest.approx(2.45509693, abs=5e-9)


def test_alpha_chooses_between_the_tokens():
    only_class, only_dist = said(objective(alpha=0.0)), said(objective(alpha=1.0))
    assert only_class[0] == only_class[1]
    assert only_dist[0] == only_dist[2]
    # The distillation token does not see the labels.
    assert said(objective(alpha=1.0), LABELS.flip(0))[0] == only_dist[0]


def test_reweighting_begins_at_its_epoch_and_ends_smoothing():
    deferred = objective(drw_epoch=3, label_smoothing=0.1, class_counts=[50, 20, 10, 5, 2])
    deferred.eval()
    deferred._weights = class_balanced_weights([50, 20, 10, 5, 2]).double()
    results = []
    for epoch in range(5):
        deferred.epoch = epoch
        results.append(said(deferred))
    assert results[0] == results[1] == results[2] != results[3] == results[4]
    smoothed = F.cross_entropy(STUDENT, LABELS, label_smoothing=0.1)
    assert results[0][1] == pytest.approx(float(smoothed))
    assert results[3][1] == pytest.approx(0.64542643, abs=5e-9)
    # Mixed labels stay smoothed.
    mixed = said(deferred, 0.5 * F.one_hot(LABELS, 5).double() + 0.1)
    assert mixed[1] != pytest.approx(
        float(F.cross_entropy(STUDENT, 0.5 * F.one_hot(LABELS, 5).double() + 0.1)), abs=1e-6
    )


def vision_transformer():
    arguments = {"patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 1}
    return create_network(
        "deit_tiny_distilled_patch16_224", num_classes=5, in_chans=1, image_size=8, network_args=arguments
    )


def attached(student, **arguments):
    made = DeiTLT(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), **arguments)
    made.attach(student, num_classes=5, in_chans=1, image_size=8)
    return made


def test_reads_both_heads_of_a_distilled_vision_transformer():
    student = vision_transformer()
    made = attached(student, label_smoothing=0.0, alpha=0.3)
    labels = torch.tensor([0, 1, 2, 3])
    context = made.context(IMAGES, labels)
    logits = student(IMAGES)
    losses, terms = made.parts(logits, labels, context)
    tokens = student.forward_features(IMAGES)
    heads = student.head(tokens[:, 0]), student.head_dist(tokens[:, 1])
    torch.testing.assert_close(logits, (heads[0] + heads[1]) / 2)
    torch.testing.assert_close(terms["cls"], F.cross_entropy(heads[0], labels, reduction="none"))
    torch.testing.assert_close(terms["dist"], F.cross_entropy(heads[1], context.logits.argmax(1), reduction="none"))
    torch.testing.assert_close(losses, 0.7 * terms["cls"] + 0.3 * terms["dist"])
    losses.mean().backward()
    assert made.teacher.network[1].weight.grad is None
    assert student.head.weight.grad.abs().sum() > 0
    assert student.head_dist.weight.grad.abs().sum() > 0


def test_a_student_without_such_heads_is_refused():
    with pytest.raises(InputError, match=r"student_layers: Sequential has no layer 'head'"):
        attached(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))


def test_reweighting_needs_the_numbers_of_training_images():
    made = attached(vision_transformer(), drw_epoch=5)
    with pytest.raises(InputError, match="drw_epoch=5 needs class_counts, the training images of each class"):
        made.context(IMAGES, torch.zeros(4))
    made.eval()
    made.context(IMAGES, torch.zeros(4))  # a test needs no weights
    made.train()
    for counts in ([5, 4, 3, 2, 1], [1, 2, 3, 4, 5]):  # a second run has its own
        made.class_counts = counts
        made.context(IMAGES, torch.zeros(4))
        torch.testing.assert_close(made._weights, class_balanced_weights(counts))


def test_given_numbers_of_training_images_win():
    student = two_headed().network
    own = Classification(
        student, 10, in_chans=1, objective=DeiTLT(teacher(), drw_epoch=0, class_counts=[*range(1, 11)])
    )
    trainer(max_epochs=1, limit_train_batches=1).fit(own, digits())
    torch.testing.assert_close(own.objective._weights, class_balanced_weights([*range(1, 11)]))
    from_data = two_headed()
    data = digits(subset=None, imbalance_ratio=5)
    trainer(max_epochs=1, limit_train_batches=1).fit(from_data, data)
    torch.testing.assert_close(from_data.objective._weights, class_balanced_weights(data.class_counts))


def test_a_teacher_that_names_only_classes_without_images_teaches_nothing():
    made = objective(drw_epoch=0)
    made._weights = class_balanced_weights([0, 0, 3, 3, 3]).double()
    total, cls, _ = said(made)
    assert total == pytest.approx(0.5 * cls)


def test_what_does_not_fit_is_refused_when_a_recipe_is_built():
    with pytest.raises(InputError, match=r"class_counts must have 5 numbers \(num_classes\) but is \[1, 2\]"):
        attached(vision_transformer(), class_counts=[1, 2])
    with pytest.raises(InputError, match=r"heads: norm gives outputs of shape .* and not logits \(2, 5\)"):
        attached(vision_transformer(), heads=("head", "norm"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\] but is 1.5"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"drw_beta": 1.0}, "drw_beta must be in"),
        ({"drw_epoch": -1}, "drw_epoch must be at least 0, .* but is -1"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(InputError, match=message):
        objective(**arguments)
