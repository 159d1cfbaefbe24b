import copy

import pytest
import torch
from lightning_recipes.modules.attacks import SecondBatchNorm
from torch import nn


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


@pytest.mark.parametrize("compiled", [False, True])
def test_shares_all_weights_but_those_of_the_norms(compiled):
    """With both sets as copied it is the network; what one learns and counts the other does not."""
    torch._dynamo.reset()
    net, images = network(), torch.randn(8, 1, 4, 4)
    plain = copy.deepcopy(net)
    second = SecondBatchNorm(net)
    if compiled:
        net.compile(backend="eager")
    output = second(net, images)
    torch.testing.assert_close(output, plain(images))
    layer = second.layers[0]
    assert (layer.num_batches_tracked, net[1].num_batches_tracked) == (1, 0)
    torch.testing.assert_close(layer.running_mean, plain[1].running_mean)
    gradients = torch.autograd.grad(output.sum(), [net[0].weight, layer.weight, net[1].weight], allow_unused=True)
    assert [gradient is not None for gradient in gradients] == [True, True, False]
    layer.weight.data *= 3
    net.eval(), second.eval()
    assert not torch.allclose(second(net, images), net(images))
