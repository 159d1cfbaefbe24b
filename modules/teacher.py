"""A trained network that only answers: where it comes from, and how it stays out of the module it teaches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import InputError
from .feature_capture import FeatureCapture
from .network_file import load_network, rebuild_network
from .networks import arranged, create_network, fastest_memory_format


class Teacher:
    """A frozen network, in evaluation mode and without gradients.

    It is no `nn.Module`, so the module that holds it neither trains, nor saves, nor sends it to other processes; that
    module passes on its own moves and casts through :meth:`apply`. Copies of the module share it.

    Args:
        network: Maps images to logits. It is frozen and moved where it stands.
        image_size: Height and width in pixels that images of another size are resized to (bicubic) before the network
            sees them; None leaves them as they are.
        layers: Names of the layers whose outputs are wanted too.
        compile: Run the network through `torch.compile`.

    Raises:
        InputError: If the network has no such layer.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        image_size: int | None = None,
        layers: Sequence[str] = (),
        compile: bool = False,  # noqa: A002, torch's own word
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.image_size = image_size
        self.memory_format = fastest_memory_format(network)
        if self.memory_format is not torch.preserve_format:
            self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.features = FeatureCapture(network, layers, argument="teacher_layers")
        if compile:
            network.compile()

    def __call__(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits of images ``(N, C, H, W)``, and the outputs of the layers."""
        like = next(self.network.parameters(), None)
        if like is not None and like.device != images.device:
            self.network.to(images.device)  # strategies that shard move modules in ways of their own
        if self.image_size is not None and images.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            # Not every device can do it in half precision.
            images = F.interpolate(images.float(), size, mode="bicubic", antialias=True).to(images.dtype)
        self.features.start()
        with torch.no_grad():
            logits = self.network(arranged(images, self.memory_format))
        return logits, self.features.maps()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the images it takes."""
        return next((value.dtype for value in self.network.parameters() if value.is_floating_point()), torch.float32)

    def apply(self, function: Any) -> None:
        """What `nn.Module._apply` does to a part of a module."""
        self.network._apply(function)

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    def digest(self) -> str:
        """Hexadecimal digits that any change of the network or its weights changes."""
        digest = hashlib.sha256(f"{self.network!r} {self.image_size}".encode())
        for name, value in self.network.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:32]


def load_teacher(
    source: str, *, num_classes: int, in_chans: int, network_args: dict[str, Any] | None = None
) -> tuple[nn.Module, int | None]:
    """A trained network by name or from a file.

    Args:
        source: A checkpoint of a recipe (``.ckpt``), a file of `save_network` or `recipes export` (``.safetensors``),
            or a timm name, whose pretrained weights are then loaded.
        num_classes: Classes it must tell apart.
        in_chans: Channels of an image.
        network_args: Further arguments of a timm network.

    Returns:
        The network, and the height and width of the images it was trained on where its file says so.

    Raises:
        InputError: If there is no such file or network, it cannot be read, or it has other classes or channels.
    """
    if Path(source).suffix in (".ckpt", ".safetensors"):
        if network_args:
            raise InputError(f"teacher_args {network_args} need teacher to be a name, but {source} is a file")
        if not Path(source).is_file():
            raise InputError(
                f"teacher {source} does not exist: train it first (`recipes show` prints a recipe, whose head has the"
                " command) or name another file; a trained student needs none with --model.objective CrossEntropy"
            )
        network, facts = load_network(source) if source.endswith(".safetensors") else _from_checkpoint(source)
        _check_fits(source, facts["num_classes"], num_classes, "classes")
        _check_fits(source, facts["in_chans"], in_chans, "channels")
        return network, facts["image_size"]
    if Path(source).is_file() or Path(source).suffix in (".pt", ".pth", ".pt2", ".bin", ".onnx"):
        raise InputError(
            f"teacher {source} is no .ckpt of a recipe, no .safetensors of `recipes export` and no timm name: load"
            " weights into a timm network by teacher_args {pretrained: false, checkpoint_path: FILE}"
        )
    arguments = {"pretrained": True, **(network_args or {})}
    config = timm.get_pretrained_cfg(source) if timm.is_model(source) else None
    if arguments["pretrained"] and config is not None and config.has_weights:
        _check_fits(source, config.num_classes, num_classes, "classes")
    return create_network(source, num_classes=num_classes, in_chans=in_chans, network_args=arguments), None


def _from_checkpoint(path: str) -> tuple[nn.Module, dict[str, Any]]:
    try:
        # Memory-mapped, as the optimizer's state is not needed.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        facts, weights = checkpoint["hyper_parameters"], checkpoint["state_dict"]
        name = facts["network"]
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:100]
        raise InputError(
            f"teacher {path} is no checkpoint of a recipe whose network has a name ({type(error).__name__}: {reason}):"
            " take another, or build the network yourself and give it as a module"
        ) from error
    network = rebuild_network({**facts, "name": name})
    prefix = "network."
    try:
        network.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise InputError(f"teacher {path} does not fit {name}: {str(error)[:300]}") from error
    return network, facts


def _check_fits(source: str, found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise InputError(f"teacher {source} knows {found} {what}, the student {wanted}: choose one of the same task")
