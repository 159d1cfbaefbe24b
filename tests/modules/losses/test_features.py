import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.losses import (
    AttentionTransfer,
    FitNet,
    attention_maps,
    attention_transfer_loss,
    fitnet_loss,
)


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_fitnet_is_the_mean_squared_difference():
    student, teacher = maps(4, 3, 5, 5), maps(4, 3, 5, 5, seed=1)
    result = fitnet_loss(student, teacher)
    assert result.shape == (4,)
    torch.testing.assert_close(result.mean(), torch.nn.functional.mse_loss(student, teacher))
    with pytest.raises(ValueError, match=r"the shape of student_features \(4, 3, 5, 5\) but got \(4, 2, 5, 5\)"):
        fitnet_loss(student, teacher[:, :2])


@pytest.mark.parametrize("side", [8, 4, 2, 6, 5])
def test_regressors_bring_the_students_maps_to_the_teachers(side):
    loss = FitNet(["a"], ["b"])
    loss.build([(3, side, side)], [(6, 4, 4)])
    student = maps(2, 3, side, side).float().requires_grad_()
    result = loss([student], [maps(2, 6, 4, 4).float().relu()])
    assert result.shape == (2,)
    result.sum().backward()
    assert student.grad.abs().sum() > 0
    assert all(p.grad is not None for p in loss.parameters())


def test_fitnet_refuses_maps_it_cannot_bring_together():
    with pytest.raises(InputError, match=r"a feature map of \[3, 3\] pixels and teacher_layers one of \[4, 4\]"):
        FitNet(["a"], ["b"]).build([(3, 3, 3)], [(6, 4, 4)])
    with pytest.raises(InputError, match=r"layer b gives \('N', 6\), no feature map"):
        FitNet(["a"], ["b"]).build([(3, 4, 4)], [(6,)])


@pytest.mark.parametrize("kind", [FitNet, AttentionTransfer])
def test_layers_come_in_pairs(kind):
    for layers in ([], []), (["a"], []):
        with pytest.raises(InputError, match="must name the same number of layers, at least one"):
            kind(*layers)


def test_attention_maps_by_hand():
    features = torch.tensor([[[[3.0, 0.0]], [[0.0, -2.0]]]])  # one image, two channels, 1x2 pixels
    torch.testing.assert_close(attention_maps(features, power=2.0), torch.tensor([[9.0, 4.0]]) / 97**0.5)
    assert attention_maps(maps(3, 4, 2, 2)).norm(dim=1).tolist() == pytest.approx([1, 1, 1])
    # Only where it looks counts, not how bright it is.
    torch.testing.assert_close(attention_maps(1e15 * features), attention_maps(features))
    assert torch.equal(attention_maps(0 * features), torch.zeros(1, 2))


def test_attention_transfer_by_the_formula_and_for_maps_of_two_sizes():
    student, teacher = [maps(4, 3, 6, 6), maps(4, 5, 4, 4)], [maps(4, 7, 6, 6, seed=1), maps(4, 5, 8, 8, seed=2)]
    expected = torch.zeros(4).double()
    for s, t in zip(student, teacher, strict=True):
        t = torch.nn.functional.avg_pool2d(t, t.shape[2] // s.shape[2])
        a, b = (f.square().mean(1).flatten(1) for f in (s, t))
        expected += (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square().mean(1)
    torch.testing.assert_close(attention_transfer_loss(student, teacher), expected)
    torch.testing.assert_close(AttentionTransfer(["a", "b"], ["c", "d"])(student, teacher), expected)
    assert attention_transfer_loss(student, student).abs().max() < 1e-12
