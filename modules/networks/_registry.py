"""Registration of our networks in timm, and timm's factory with helpful errors."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from timm.models import register_model
from torch import nn

from ..core.errors import InputError

_BUILDERS: dict[str, Callable[..., nn.Module]] = {}


def register(name: str, build: Callable[..., nn.Module]) -> None:
    """Make a network available as ``timm.create_model(name, …)``.

    Args:
        name: Name in timm's registry.
        build: Function of ``num_classes``, ``in_chans`` and the arguments specific to the network.
    """

    # timm passes these four arguments to every entry point.
    def entry(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        **kwargs: Any,
    ) -> nn.Module:
        if pretrained:
            raise InputError(f"pretrained=True: there are no weights for {name}; train it or choose a network of timm")
        return build(**kwargs)

    entry.__name__ = name
    entry.__module__ = __name__
    _BUILDERS[name] = build
    register_model(entry)


def own_networks() -> dict[str, Callable[..., nn.Module]]:
    """Return the networks of this project: a builder for each name in timm's registry."""
    return dict(_BUILDERS)


def create_network(
    name: str,
    *,
    num_classes: int,
    in_chans: int = 3,
    network_args: dict[str, Any] | None = None,
    image_size: int | None = None,
) -> nn.Module:
    """Call `timm.create_model`, suggest similar names if the name is unknown, and pass the image size if it is needed.

    Args:
        name: Name of a network, e.g. ``cifar_resnet32``, ``resnet50`` or ``resnet18.a1_in1k``. With timm's prefixes it
            is a folder (``local-dir:FOLDER``) or a repository (``hf-hub:NAME``) with a network's ``config.json``.
        num_classes: Number of logits.
        in_chans: Number of image channels.
        network_args: Further arguments of the network, e.g. ``{"pretrained": True}``.
        image_size: Height and width of an image in pixels; used by networks with weights that depend on it.

    Raises:
        InputError: If there is no such network, or it does not accept one of the arguments.
    """
    args = dict(network_args or {})
    for argument in ("num_classes", "in_chans"):
        if argument in args:
            raise InputError(f"network_args must not hold {argument}, which is an argument of its own: leave it out")
    config = _pretrained_config(name)
    if image_size is not None and not {"img_size", "image_size"} & set(args):
        if name in _BUILDERS:
            if "image_size" in _own_arguments(name):
                args["image_size"] = image_size
        elif getattr(config, "fixed_input_size", False):  # timm can build all of these for another size
            args["img_size"] = image_size
    try:
        return timm.create_model(name, num_classes=num_classes, in_chans=in_chans, **args)
    except TypeError as error:
        wrong = re.search(r"(?:unexpected keyword argument|multiple values for argument) '(\w+)'", str(error))
        if wrong is None or wrong[1] not in args:
            raise
        reason = "fixes the" if "multiple values" in wrong[0] else "has no"
        takes = f"; it takes {', '.join(_own_arguments(name)) or 'none'}" if name in _BUILDERS else ""
        raise InputError(f"network_args: {name} {reason} argument {wrong[1]!r}{takes}") from error


def _pretrained_config(name: str) -> Any:
    """Return timm's configuration of pretrained weights; None for our own networks, folders and repositories."""
    if name.startswith("local-dir:") and not (Path(name.partition(":")[2]) / "config.json").is_file():
        raise InputError(f"there is no network {name!r}: a folder of timm's holds config.json and the weights")
    if name.startswith(("local-dir:", "hf-hub:", "hf_hub:")):
        return None
    try:
        if name in _BUILDERS or (timm.is_model(name) and name.partition(".")[0] not in _BUILDERS):
            return timm.get_pretrained_cfg(name)
    except RuntimeError:  # raised by timm for an unknown tag
        pass
    near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 3)
    if "." in name:
        near += difflib.get_close_matches(name, timm.list_pretrained(), 2)
    hint = f"did you mean {', '.join(near)}?" if near else f"timm.list_models('*{name[:4]}*') lists what there is."
    raise InputError(f"there is no network {name!r}; {hint}")


def _own_arguments(name: str) -> list[str]:
    """Return the arguments that ``network_args`` may hold for one of our networks."""
    return [key for key in inspect.signature(_BUILDERS[name]).parameters if key not in ("num_classes", "in_chans")]
