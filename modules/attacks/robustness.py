"""Robustness of a network against published attacks, with checks for masked gradients."""

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
    """What `pyautoattack` warned of."""

    @property
    def doubts(self) -> list[str]:
        """Signs that gradients are masked, in sentences; none is what one hopes for."""
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
    """Accuracies of a network under FGSM, PGD and AutoAttack, and whether they can be believed.

    AutoAttack (https://arxiv.org/abs/2003.01690) in its standard version, by the package ``pyautoattack``: APGD on the
    cross-entropy, targeted APGD, targeted FAB and the black-box attack Square, each on what the one before left; an
    image counts as robust if none changes its class. Below 10 classes it has fewer targets, and below 4, which the loss
    of targeted APGD needs, it goes without that one.

    A network that hides its gradients looks more robust than it is. Signs of that, from the authors of
    https://arxiv.org/abs/1802.00420: PGD with more steps finds less, FGSM finds more than PGD, a radius at which
    every image can become any other leaves images right, or an attack that knows no gradients succeeds where those that
    do have failed.

    Args:
        network: Maps images in [0, 1] to logits ``(N, C)``.
        images: Shape ``(N, channels, height, width)``, on any device.
        labels: Class indices ``(N,)``.
        eps: Radius of the attacks in pixel units.
        norm: Shape of the ball: "linf" or "l2".
        batch_size: Images that are attacked at once, where the network is.
        seed: Of the attacks' random numbers.

    Returns:
        Accuracies and doubts.

    Raises:
        InputError: If ``pyautoattack`` is not installed, ``eps`` is not positive, there are no images, pixels lie
            outside [0, 1], or images are too small for Square with the norm l2.
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
                # The settings of the standard version.
                suite.apgd.n_restarts = suite.fab.n_restarts = 1
                suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = min(9, classes - 1)
                with isolated_rng(derived_seed(Stream.ROBUSTNESS, seed), device):
                    changed, _ = suite.run_standard_evaluation(images[left], labels[left], batch_size=batch_size)
                left = left[_right(network, changed, labels[left], device, batch_size)]
            found[name] = len(left) / len(images)
    return Robustness(found, list(dict.fromkeys(warned)))


def load_autoattack() -> Any:
    """The package `pyautoattack`.

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
    """Signs of masked gradients in accuracies by attack; one is above another if it is by more than a point."""
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
    """Logits in the precision of the images, whatever the network's is; the attacks mix them."""

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
    """Return a mask ``(N,)`` of the images that the network classifies correctly, on the images' device."""
    parts = []
    for number, (some, classes) in enumerate(zip(images.split(batch_size), labels.split(batch_size), strict=True)):
        some, classes = some.to(device), classes.to(device)
        if attack is not None:
            some = attack(network, some, classes, key=(seed, number))
        parts.append((network(some).argmax(1) == classes).to(images.device))
    return torch.cat(parts)


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients of the weights, which some attacks would otherwise add up."""
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
    # Its messages end by naming a file of its repository.
    handler.emit = lambda record: collected.append("pyautoattack: " + record.getMessage().partition(" See ")[0])
    logger = logging.getLogger("auto-attack")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield collected
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
