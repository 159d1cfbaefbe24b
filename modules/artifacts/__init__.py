"""Files that runs write and read: networks, distilled sets and scores."""

from .network_file import load_network, save_network
from .synthetic_set import load_set, load_soft_labels, save_set

__all__ = ["load_network", "load_set", "load_soft_labels", "save_network", "save_set"]
