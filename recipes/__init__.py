"""LightningModules, one for each way of computing a step.

They are imported on first use: the command line's front is in this package too and must answer without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adversarial_classification import AdversarialClassification
    from .classification import Classification
    from .cli.train import train
    from .dataset_distillation import DatasetDistillation
    from .local_learning import LocalLearning

__all__ = ["AdversarialClassification", "Classification", "DatasetDistillation", "LocalLearning", "train"]

_MODULES = {
    "AdversarialClassification": "adversarial_classification",
    "Classification": "classification",
    "DatasetDistillation": "dataset_distillation",
    "LocalLearning": "local_learning",
    "train": "cli.train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
