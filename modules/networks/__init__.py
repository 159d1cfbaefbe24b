"""Networks for small images, registered with timm on import."""

from . import cifar, convnet, cross_architecture, mobile  # noqa: F401
from ._blocks import BlockNetwork
from ._memory_format import arranged, fastest_memory_format
from ._registry import create_network, own_networks

__all__ = ["BlockNetwork", "arranged", "create_network", "fastest_memory_format", "own_networks"]
