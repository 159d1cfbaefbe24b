import copy
import pickle

import pytest
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.feature_capture import FeatureCapture
from torch import nn


def network():
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 4)))


X = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))


def captured(body, capture, run):
    capture.start()
    run(X)
    return capture.take()


@pytest.mark.parametrize("way", ["plain", "compiled", "compiled in place", "wrapped"])
def test_gives_what_the_layers_gave_in_their_order(way):
    body = network()
    capture = FeatureCapture(body, ["1.1", "0"])
    expected = [body(X), body[0](X)]
    run = body
    if way == "compiled":
        run = torch.compile(body, backend="eager")
    elif way == "compiled in place":
        body.compile(backend="eager")
    elif way == "wrapped":
        run = nn.DataParallel(body)
    for _ in range(2):
        assert all(map(torch.equal, captured(body, capture, run), expected))


def test_keeps_nothing_while_off():
    body = network()
    capture = FeatureCapture(body, ["0"])
    body(X)
    with pytest.raises(InputError, match="layers: the network does not call 0, name another layer"):
        capture.take()
    first = captured(body, capture, body)
    body(X + 1)
    assert torch.equal(capture.take()[0], first[0])


def test_an_output_that_the_next_layer_changes_is_refused():
    body = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True))
    capture = FeatureCapture(body, ["0"])
    with pytest.raises(InputError, match="what 0 gives is changed in place by the layer behind it, name that one"):
        captured(body, capture, body)
    with torch.inference_mode():  # where nobody counts changes
        captured(body, capture, body)
    behind = FeatureCapture(body, ["1"])
    assert torch.equal(captured(body, behind, body)[0], body(X))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_the_network_has_a_capture_of_its_own(copied):
    body = network()
    pair = (body, FeatureCapture(body, ["0"]))
    other, capture = copied(pair)
    assert capture is not pair[1]
    assert torch.equal(captured(other, capture, other)[0], body[0](X))
    assert pair[1]._outputs == {}


def test_a_layer_that_is_not_there_is_named_with_near_ones():
    with pytest.raises(InputError, match=r"student_layers: Sequential has no layer '1.3'; it has 1\.\d"):
        FeatureCapture(network(), ["1.3"], argument="student_layers")
