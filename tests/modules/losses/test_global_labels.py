import pytest
import safetensors.torch
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import (
    ATS,
    GlobalLabels,
    ats_probabilities,
    class_means,
    fuse_global_labels,
    soft_cross_entropy,
)

from .examples import close, double, random_logits

P = double([[0.8, 0.2, 0.0], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1]])
LABELS = torch.tensor([0, 0, 1])


def test_means_of_the_classes_that_there_are():
    torch.testing.assert_close(class_means(P, LABELS), double([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0, 0, 1]]))


def test_fusion_blends_a_sample_with_its_class():
    means = class_means(P, LABELS)
    assert torch.equal(fuse_global_labels(P, LABELS, means, ratio=0.0), P)
    assert torch.equal(fuse_global_labels(P, LABELS, means, ratio=1.0), means[LABELS])
    half = fuse_global_labels(P, LABELS, means, ratio=0.5)
    torch.testing.assert_close(half[0], double([0.75, 0.2, 0.05]))
    torch.testing.assert_close(half.sum(1), torch.ones(3).double())


@pytest.fixture
def file(tmp_path):
    _, teacher, labels = random_logits(5, samples=30)
    path = tmp_path / "logits.safetensors"
    safetensors.torch.save_file({"logits": teacher, "labels": labels}, path)
    return str(path)


def test_the_loss_is_ats_against_fused_labels(file):
    student, teacher, labels = random_logits()
    _, seen, seen_labels = random_logits(5, samples=30)
    means = class_means(ats_probabilities(seen, seen_labels, tau_true=4, tau_wrong=2), seen_labels)
    p = ats_probabilities(teacher, labels, tau_true=4, tau_wrong=2)
    close(
        GlobalLabels(file, 0.3)(student, teacher, labels),
        soft_cross_entropy(student, 0.7 * p + 0.3 * means[labels]),
        atol=1e-12,
    )
    close(GlobalLabels(file, 0.0)(student, teacher, labels), ATS()(student, teacher, labels), atol=1e-12)
    assert GlobalLabels(file).state_dict() == {}


def test_what_cannot_be_used_is_refused(file, tmp_path):
    (tmp_path / "other").write_bytes(b"nonsense")
    for arguments, message in [
        (("missing",), "logits missing does not exist: `recipes temperatures` writes it"),
        ((str(tmp_path / "other"),), "holds no logits and labels"),
        ((file, 1.5), r"ratio must be in \[0, 1\] but is 1.5"),
    ]:
        with pytest.raises(InputError, match=message):
            GlobalLabels(*arguments)
