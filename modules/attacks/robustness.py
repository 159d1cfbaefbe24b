"""Robustness of a network under FGSM, PGD and AutoAttack, with checks for masked gradients."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.checks import positive
from ..core.errors import InputError
from ..core.evaluation_mode import evaluation_mode
from ..core.sampling import Stream, derived_seed, isolated_rng
from .pgd import PGD


@dataclass(frozen=True)
class Robustness:
    """Result of `robustness`; accuracies lie in [0, 1]."""

    accuracies: dict[str, float]
    """By attack: ``clean``, ``fgsm``, ``pgd20``, ``pgd100``, ``far``, ``white_box`` and ``autoattack``."""
    warnings: list[str] = field(default_factory=list)
    """Warnings of `pyautoattack`."""

    @property
    def doubts(self) -> list[str]:
        """Signs of masked gradients, as sentences; empty if there are none."""
        return [*masking_signs(self.accuracies), *self.warnings]


def robustness(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    norm: Literal["linf", "l2"] = "linf",
    batch_size: int = 250,
    seed: int = 0,
) -> Robustness:
    """Compute the accuracies of a network under FGSM, PGD and AutoAttack, and look for masked gradients.

    AutoAttack (https://arxiv.org/abs/2003.01690) runs in its standard version, from the package ``pyautoattack``. It
    applies APGD on the cross-entropy, targeted APGD, targeted FAB and the black-box attack Square, in this order. Each
    attack gets the images that the earlier ones did not break. An image is robust if no attack changes its class. With
    fewer than 10 classes there are fewer targets. With fewer than 4 classes targeted APGD is left out, because its loss
    needs 4.

    A network with masked gradients looks more robust than it is. The signs follow https://arxiv.org/abs/1802.00420:

    - 100 steps of PGD break fewer images than 20.
    - FGSM breaks more images than PGD, or PGD more than the white-box attacks of AutoAttack.
    - Some images survive PGD with the largest possible radius.
    - Square, which uses no gradients, breaks images that survived the white-box attacks.

    Args:
        network: Maps images in [0, 1] to logits ``(N, C)``.
        images: Shape ``(N, channels, height, width)``, on any device.
        labels: Class indices ``(N,)``.
        eps: Radius of the attacks in pixel units.
        norm: Norm of the ball: "linf" or "l2".
        batch_size: Number of images attacked at once, on the network's device.
        seed: Seed of the attacks' random numbers.

    Returns:
        Accuracies and doubts.

    Raises:
        InputError: If ``pyautoattack`` is not installed, ``eps`` is not positive, there are no images, pixels lie
            outside [0, 1], or images are too small for Square with the norm "l2".
    """
    package = load_autoattack()
    positive(eps=eps)
    if not len(images):
        raise InputError("there are no images to attack")
    if images.min() < -1e-3 or images.max() > 1 + 1e-3:
        raise InputError(
            f"images must have pixels in [0, 1] but they go from {float(images.min()):.3f} to"
            f" {float(images.max()):.3f}: give mean and std of the data"
        )
    if norm == "l2" and min(images.shape[2:]) < 5:
        raise InputError(f"norm l2 needs images of 5x5 pixels or more, for Square, but they have {images.shape[2:]}")
    images = images.float().clamp(0, 1)
    network = _Float32(network)
    device = next((value.device for value in network.parameters()), images.device)
    far = 1.0 if norm == "linf" else float(images[0].numel()) ** 0.5
    attacks = {
        "fgsm": PGD(eps, eps, 1, norm=norm, start="image"),
        "pgd20": PGD(eps, eps / 4, 20, norm=norm),
        "pgd100": PGD(eps, eps / 4, 100, norm=norm),
        "far": PGD(far, far / 20, 40, norm=norm),
    }
    with _frozen(network), _warnings() as warned:
        right = _right(network, images, labels, device, batch_size)
        found = {"clean": _share(right)}
        for name, attack in attacks.items():
            found[name] = _share(_right(network, images, labels, device, batch_size, attack, seed))
        classes = network(images[:1].to(device)).shape[1]
        white_box = ["apgd-ce", "apgd-t", "fab-t"] if classes >= 4 else ["apgd-ce", "fab-t"]
        left = right.nonzero().flatten()
        for name, names in (("white_box", white_box), ("autoattack", ["square"])):
            if len(left):
                suite = package.AutoAttack(
                    network,
                    attacks=names,
                    device=device,
                    eps=eps,
                    norm={"linf": "Linf", "l2": "L2"}[norm],
                    seed=seed,
                    version="custom",
                )
                # Settings of the standard version.
                suite.apgd.n_restarts = suite.fab.n_restarts = 1
                suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = min(9, classes - 1)
                with isolated_rng(derived_seed(Stream.ROBUSTNESS, seed), device):
                    changed, _ = suite.run_standard_evaluation(images[left], labels[left], batch_size=batch_size)
                left = left[_right(network, changed, labels[left], device, batch_size)]
            found[name] = len(left) / len(images)
    return Robustness(found, list(dict.fromkeys(warned)))


def load_autoattack() -> Any:
    """Return the package `pyautoattack`.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return import_module("pyautoattack")
    except ModuleNotFoundError as error:
        if error.name != "pyautoattack":
            raise
        raise InputError("AutoAttack needs the extra: pip install 'lightning-recipes[attacks]'") from error


def masking_signs(found: dict[str, float]) -> list[str]:
    """Return the signs of masked gradients in accuracies by attack; differences up to one point are ignored."""
    signs = {
        "fgsm": ("fgsm", "pgd20", "one step of FGSM finds more than 20 of PGD"),
        "steps": ("pgd20", "pgd100", "20 steps of PGD find more than 100"),
        "autoattack": ("pgd20", "white_box", "PGD finds more than the white-box attacks of AutoAttack"),
        "square": ("autoattack", "white_box", "Square, which knows no gradients, succeeds where those that do fail"),
    }
    doubts = [
        f"{text} ({found[stronger]:.4f} against {found[weaker]:.4f})"
        for stronger, weaker, text in signs.values()
        if found[stronger] < found[weaker] - _POINT
    ]
    if found["far"] > _POINT:
        doubts.append(f"within the largest radius there is, {found['far']:.4f} of the images stay right")
    return doubts


_POINT = 0.01


class _Float32(nn.Module):
    """Wrapper that returns float32 logits, because the attacks combine logits and images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).float()


def _share(right: Tensor) -> float:
    return right.float().mean().item()


def _right(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    device: torch.device,
    batch_size: int,
    attack: PGD | None = None,
    seed: int = 0,
) -> Tensor:
    """Return whether each image, attacked or not, is classified correctly; bool ``(N,)`` on the images' device."""
    parts = []
    for number, (some, classes) in enumerate(zip(images.split(batch_size), labels.split(batch_size), strict=True)):
        some, classes = some.to(device), classes.to(device)
        if attack is not None:
            some = attack(network, some, classes, key=(seed, number))
        parts.append((network(some).argmax(1) == classes).to(images.device))
    return torch.cat(parts)


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Put the network in evaluation mode without gradients of its weights; some attacks would accumulate them."""
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        with torch.inference_mode(False), torch.no_grad(), evaluation_mode(network):
            yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect the warnings of `pyautoattack` instead of printing them."""
    collected: list[str] = []
    handler = logging.Handler(logging.WARNING)
    # Its messages end with the name of a file in its repository.
    handler.emit = lambda record: collected.append("pyautoattack: " + record.getMessage().partition(" See ")[0])
    logger = logging.getLogger("auto-attack")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield collected
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
