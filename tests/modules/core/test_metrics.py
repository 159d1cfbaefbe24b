import math

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.metrics import CIFAR10_GROUPS, CIFAR100_GROUPS, GroupAccuracy

# Right: both of class 0, one of three of class 1, none of class 2, the one of class 3.
LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 3])
PREDICTED = torch.tensor([0, 0, 1, 0, 2, 3, 3])
GROUPS = {"head": (0, 1), "tail": (2, 3)}


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def test_accuracy_is_over_the_samples_of_a_group_not_over_its_classes():
    metric = GroupAccuracy(GROUPS, num_classes=4)
    metric.update(PREDICTED, LABELS)
    # The mean over classes would be (1 + 1/3) / 2 for the head.
    assert values(metric) == {"head": pytest.approx(3 / 5), "tail": pytest.approx(1 / 2)}


def test_batches_add_up_whether_logits_or_classes():
    metric = GroupAccuracy(GROUPS, num_classes=4)
    logits = torch.nn.functional.one_hot(PREDICTED, 4) * 5.0 - 9
    metric.update(logits[:3], LABELS[:3])
    metric.update(PREDICTED[3:], LABELS[3:])
    assert values(metric) == {"head": pytest.approx(3 / 5), "tail": pytest.approx(1 / 2)}
    metric.reset()
    metric.update(PREDICTED[:2], LABELS[:2])
    assert values(metric)["head"] == 1.0


def test_a_group_without_samples_is_nan_and_unknown_labels_count_nowhere():
    metric = GroupAccuracy(GROUPS, num_classes=4)
    metric.update(torch.tensor([0, -1]), torch.tensor([0, -1]))
    assert values(metric)["head"] == 1.0
    assert math.isnan(values(metric)["tail"])


def test_groups_may_overlap_and_the_whole_is_ordinary_accuracy():
    metric = GroupAccuracy(GROUPS | {"all": (0, 3), "one": (1, 1)}, num_classes=4)
    metric.update(PREDICTED, LABELS)
    assert values(metric)["all"] == pytest.approx((PREDICTED == LABELS).float().mean().item())
    assert values(metric)["one"] == pytest.approx(1 / 3)


def test_counts_are_summed_over_processes():
    ranks = [GroupAccuracy(GROUPS, num_classes=4) for _ in range(2)]
    for rank, metric in enumerate(ranks):
        metric.update(PREDICTED[rank::2], LABELS[rank::2])
    states = {name: [getattr(metric, name).clone() for metric in ranks] for name in ("correct", "total")}
    ranks[0].distributed_available_fn = lambda: True
    # What a gather of each of the first process's states gives, in the order in which they are asked for.
    gathered = iter(states.values())
    ranks[0].dist_sync_fn = lambda state, group=None: next(gathered)
    assert values(ranks[0]) == {"head": pytest.approx(3 / 5), "tail": pytest.approx(1 / 2)}


def test_an_update_never_asks_the_device_for_a_value():
    # A tensor on this device has no values: asking for one is an error.
    metric = GroupAccuracy(GROUPS, num_classes=4).to("meta")
    labels = torch.zeros(6, dtype=torch.long, device="meta")
    metric.update(torch.zeros(6, 4, device="meta"), labels)
    metric.update(labels, labels)
    assert metric.total.device.type == "meta"


def test_it_leaves_no_trace_in_checkpoints():
    assert GroupAccuracy(GROUPS, num_classes=4).state_dict() == {}


@pytest.mark.parametrize(("groups", "classes"), [(CIFAR10_GROUPS, 10), (CIFAR100_GROUPS, 100)])
def test_the_published_groups_hold_every_class_once(groups, classes):
    members = [index for first, last in groups.values() for index in range(first, last + 1)]
    assert members == list(range(classes))
    assert list(groups) == ["head", "mid", "tail"]
    GroupAccuracy(groups, num_classes=classes)


@pytest.mark.parametrize("span", [(2, 1), (-1, 2), (2, 4)])
def test_groups_that_hold_no_class_are_named(span):
    match = rf"groups\['tail'\] must be .* in 0\.\.3 but is \({span[0]}, {span[1]}\)"
    with pytest.raises(InputError, match=match):
        GroupAccuracy({"head": (0, 1), "tail": span}, num_classes=4)


def test_no_group_at_all_is_refused():
    with pytest.raises(InputError, match=r"groups must name at least one group of classes but is \{\}"):
        GroupAccuracy({}, num_classes=4)


@pytest.mark.parametrize(("predictions", "labels"), [((3, 5), (3,)), ((3,), (4,)), ((3, 4), (3, 4))])
def test_other_shapes_are_refused(predictions, labels):
    with pytest.raises(ValueError, match=r"predictions must have shape \(N, 4\) or \(N,\)"):
        GroupAccuracy(GROUPS, num_classes=4).update(torch.zeros(predictions), torch.zeros(labels))
