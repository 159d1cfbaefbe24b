"""Parameter groups: separate optimizer options for some of the parameters."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import nn
from torch.optim import Optimizer

from ..core.checks import check
from ..core.errors import InputError


def parameter_groups(
    module: nn.Module,
    network: nn.Module,
    *,
    decay_biases_and_norms: bool = True,
    layer_decay: float | None = None,
    parameter_options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return groups for an optimizer, in the order of the module's parameters.

    Options of a group override the optimizer's. ``lr_scale`` multiplies the optimizer's learning rate; `scale_rates`
    applies it.

    Args:
        module: Module with the parameters. Every parameter that requires a gradient is in one group.
        network: Part of the module that ``layer_decay`` and the method ``no_weight_decay()`` refer to.
        decay_biases_and_norms: False sets weight decay to 0 for biases, norms and other one-dimensional parameters, and
            for the names that the network's ``no_weight_decay()`` returns. In timm's transformers these are the class
            token and the position embedding.
        layer_decay: Factor of the learning rate from one layer to the layer before it, in (0, 1]; the classifier has
            the full rate (https://arxiv.org/abs/2106.08254). timm defines the layers. None is no factor.
        parameter_options: Options of the parameters with names that match a shell pattern, e.g.
            ``{"*.head.*": {"lr": 0.01}, "*.bias": {"weight_decay": 0}}``. If several patterns match, the last one wins.

    Raises:
        InputError: If a pattern matches no parameter, ``layer_decay`` is out of its range, or the network does not
            define its layers.

    Examples:
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        >>> groups = parameter_groups(network, network, decay_biases_and_norms=False)
        >>> [(len(group["params"]), group.get("weight_decay")) for group in groups]
        [(1, None), (3, 0.0)]
    """
    named = {name: value for name, value in module.named_parameters() if value.requires_grad}
    options: dict[str, dict[str, Any]] = {name: {} for name in named}
    if not decay_biases_and_norms:
        own = getattr(network, "no_weight_decay", set)()
        exempt = {
            id(value)
            for name, value in network.named_parameters()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in own)
        }
        for name, value in named.items():
            if value.ndim <= 1 or name.endswith(".bias") or id(value) in exempt:
                options[name]["weight_decay"] = 0.0
    if layer_decay is not None:
        scales = _layer_scales(network, layer_decay)
        for name, value in named.items():
            if scales.get(id(value), 1.0) != 1.0:
                options[name]["lr_scale"] = scales[id(value)]
    for pattern, values in (parameter_options or {}).items():
        names = fnmatch.filter(named, pattern)
        if not names:
            raise InputError(
                f"parameter_options: no trained parameter has a name like {pattern!r}; names are like"
                f" {', '.join(list(named)[:3])}"
            )
        for name in names:
            options[name] |= values
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, value in named.items():
        key = tuple(sorted(options[name].items()))
        groups.setdefault(key, {"params": [], **options[name]})["params"].append(value)
    return list(groups.values())


def scale_rates(optimizer: Optimizer) -> None:
    """Multiply the learning rate of each group by its ``lr_scale``, before a schedule reads the rates."""
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("lr_scale", 1.0)


class FoundRate:
    """Attribute of a recipe that Lightning's `LearningRateFinder` sets, so that schedules use the found rate.

    Lightning gives the found rate only to the optimizer, and a schedule overwrites it after its first step.
    """

    def __get__(self, recipe: Any, owner: type | None = None) -> float | None:
        """Return the found rate; None before the search."""
        return None if recipe is None else vars(recipe).get("_found_rate")

    def __set__(self, recipe: Any, rate: float) -> None:
        """Scale the base rates of all schedules to the found rate."""
        vars(recipe)["_found_rate"] = rate
        factor = rate / recipe.trainer.optimizers[0].defaults["lr"]
        for config in recipe.trainer.lr_scheduler_configs:
            if hasattr(config.scheduler, "base_lrs"):
                config.scheduler.base_lrs = [base * factor for base in config.scheduler.base_lrs]


def _layer_scales(network: nn.Module, layer_decay: float) -> dict[int, float]:
    """Return the learning-rate factor of each parameter, by the parameter's id."""
    check(0 < layer_decay <= 1, "layer_decay", layer_decay, "in (0, 1]")
    if not hasattr(network, "group_matcher"):
        raise InputError(
            f"layer_decay {layer_decay}: {type(network).__name__} does not know its layers; choose a network of timm's,"
            " or give parameter_options with an lr_scale"
        )
    groups = param_groups_layer_decay(network, layer_decay=layer_decay)
    return {id(value): group["lr_scale"] for group in groups for value in group["params"]}
