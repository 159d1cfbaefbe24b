"""Teachers loaded by name, from a folder, or from a file of this or another project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ..artifacts.network_file import load_network, rebuild_network
from ..core.errors import InputError
from ..networks import create_network
from .weights import load_weights


@dataclass(frozen=True)
class TeacherFacts:
    """Facts about a teacher's images and classes, as far as they are known."""

    image_size: int | None = None
    """Height and width of the teacher's images in pixels."""
    mean: Sequence[float] | None = None
    """Mean per channel that the teacher's images were normalized with, on the scale [0, 1]."""
    std: Sequence[float] | None = None
    """Standard deviation per channel that the teacher's images were normalized with, on the same scale."""
    class_names: Sequence[str] | None = None
    """Names of the teacher's classes, in the order of its logits."""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> TeacherFacts:
        """Read the facts from a mapping; missing or empty values are unknown."""
        return cls(**{name: facts.get(name) or None for name in cls.__dataclass_fields__})


def load_teacher(
    source: str | Path,
    *,
    num_classes: int | None,
    in_chans: int,
    network_args: dict[str, Any] | None = None,
    student_classes: int | None = None,
) -> tuple[nn.Module, TeacherFacts]:
    """Load a trained network by name or from a file.

    Args:
        source: A checkpoint of a recipe (``.ckpt``), a file of `save_network` or `recipes export` (``.safetensors``),
            or a network's name: a timm name, one of ours, or ``local-dir:FOLDER``. A name loads its pretrained weights.
        num_classes: Required number of classes; None accepts any number.
        in_chans: Number of image channels.
        network_args: Further arguments of a network given by name. ``checkpoint_path`` is a file of weights from any
            project (`load_weights`), used instead of the pretrained weights; ``prefix`` is the common prefix of its
            names. ``mean`` and ``std`` are the statistics that the network's images were normalized with, if its file
            does not give them. ``num_classes`` is the network's number of classes, if the argument ``num_classes`` is
            None.
        student_classes: Number of classes for a name without pretrained weights, if ``num_classes`` is None.

    Returns:
        The network, and the known facts.

    Raises:
        InputError: If there is no such file or network, it cannot be read, or it has other classes or channels.
    """
    source, arguments = str(source), dict(network_args or {})
    given = {name: arguments.pop(name, None) for name in ("mean", "std")}
    if (given["mean"] is None) != (given["std"] is None):
        raise InputError(f"teacher_args must hold mean and std, or none of them, but has {network_args}")
    network, facts = _load(source, num_classes, in_chans, arguments, student_classes)
    return network, TeacherFacts.of({**vars(facts), **(given if given["mean"] is not None else {})})


def _load(
    source: str, num_classes: int | None, in_chans: int, arguments: dict[str, Any], student_classes: int | None
) -> tuple[nn.Module, TeacherFacts]:
    if Path(source).suffix in (".ckpt", ".safetensors") and not source.startswith("local-dir:"):
        if arguments:
            raise InputError(f"teacher_args {arguments} need teacher to be a name, but {source} is a file")
        if not Path(source).is_file():
            raise InputError(
                f"teacher {source} does not exist: train it first (`recipes show` prints a recipe, whose head has the"
                " command) or name another file; a trained student needs none with --model.objective CrossEntropy"
            )
        network, facts = load_network(source) if source.endswith(".safetensors") else _from_checkpoint(source)
        _check_fits(source, facts["num_classes"], num_classes, "classes")
        _check_fits(source, facts["in_chans"], in_chans, "channels")
        return network, TeacherFacts.of(facts)
    if Path(source).is_file() or Path(source).suffix in (".pt", ".pth", ".pt2", ".bin", ".onnx"):
        raise InputError(
            f"teacher {source} is no .ckpt of a recipe, no .safetensors of `recipes export` and no name of a network:"
            f" give the network's name, and teacher_args {{checkpoint_path: {source}}}"
        )
    if Path(source).is_dir() and not timm.is_model(source):
        raise InputError(
            f"teacher {source} is a folder: name a checkpoint in it, or write local-dir:{source} for timm's"
        )
    return _by_name(source, num_classes, in_chans, arguments, student_classes)


def _by_name(
    name: str, num_classes: int | None, in_chans: int, arguments: dict[str, Any], student_classes: int | None
) -> tuple[nn.Module, TeacherFacts]:
    file, prefix = arguments.pop("checkpoint_path", None), arguments.pop("prefix", None)
    if prefix is not None and not file:
        raise InputError(f"teacher_args.prefix {prefix!r} needs teacher_args.checkpoint_path")
    arguments = {"pretrained": not file, **arguments}
    pretrained = bool(arguments["pretrained"])
    own_classes = arguments.pop("num_classes", None)
    in_folder = name.startswith(("local-dir:", "hf-hub:", "hf_hub:"))
    config = timm.get_pretrained_cfg(name) if not in_folder and timm.is_model(name) else None
    if pretrained and config is not None and config.has_weights:
        own_classes = config.num_classes
    if own_classes is not None:
        _check_fits(name, own_classes, num_classes, "classes")
    classes = own_classes or num_classes or student_classes or 1000
    network = create_network(name, num_classes=classes, in_chans=in_chans, network_args=arguments)
    config = getattr(network, "pretrained_cfg", None) or {}
    if file:
        load_weights(network, file, prefix=prefix)
    elif pretrained and in_folder and config.get("num_classes") not in (None, classes):
        if num_classes is not None:
            _check_fits(name, config["num_classes"], num_classes, "classes")
        network = create_network(name, num_classes=config["num_classes"], in_chans=in_chans, network_args=arguments)
    facts: dict[str, Any] = {}
    if config.get("fixed_input_size"):
        facts["image_size"] = _side(arguments.get("img_size", config["input_size"][-1]))
    if pretrained and not file:
        for statistic in ("mean", "std"):
            values = list(config.get(statistic) or [])
            # If an image has fewer channels, timm sums the weights over the channels.
            facts[statistic] = values if len(values) == in_chans else [sum(values) / len(values)] * in_chans
        facts["class_names"] = config.get("label_names")
    return network, TeacherFacts.of(facts)


def _side(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else size[-1]


def _from_checkpoint(path: str) -> tuple[nn.Module, dict[str, Any]]:
    try:
        # Memory-mapped, because the optimizer's state is not needed.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        facts, weights = checkpoint["hyper_parameters"], checkpoint["state_dict"]
        name = facts["network"]
        if not isinstance(name, str) or "num_classes" not in facts:
            raise KeyError("network")
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:100]
        raise InputError(
            f"teacher {path} is no checkpoint of a recipe whose network has a name ({type(error).__name__}: {reason}):"
            f" give the network's name and teacher_args {{checkpoint_path: {path}}}, or build the network yourself and"
            " give it as a module"
        ) from error
    network = rebuild_network({**facts, "name": name})
    prefix = "network."
    try:
        network.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise InputError(f"teacher {path} does not fit {name}: {str(error)[:300]}") from error
    return network, {**facts, **checkpoint.get("data_facts", {})}


def _check_fits(source: str, found: int, wanted: int | None, what: str) -> None:
    if wanted is not None and found != wanted:
        raise InputError(f"teacher {source} knows {found} {what}, the student {wanted}: choose one of the same task")
