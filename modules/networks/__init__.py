"""Networks for small images, registered with timm on import."""

from . import cifar, convnet  # noqa: F401
from ._blocks import BlockNetwork
from ._registry import create_network

__all__ = ["BlockNetwork", "create_network"]
