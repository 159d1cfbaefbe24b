"""Networks for small images, registered with timm on import."""

from . import cifar, convnet, cross_architecture, mobile  # noqa: F401
from ._blocks import BlockNetwork
from ._memory_format import fastest_memory_format, to_memory_format
from ._registry import create_network, own_networks
from .normalized import Normalized

__all__ = ["BlockNetwork", "Normalized", "create_network", "fastest_memory_format", "own_networks", "to_memory_format"]
