import torch
from lightning_recipes.modules.losses import class_means, fuse_global_labels

from .examples import double

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
