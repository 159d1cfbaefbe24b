"""Gradient matching: match the weight gradients of real and synthetic images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import at_least, positive
from ..core.errors import InputError
from ..core.sampling import Stream, epoch_generator
from ._base import ClassBatch, Matching, has_batch_statistics, with_gradients

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Published outer and inner loop for each number of images per class."""

PER_CLASS = 16
"""Real images per class for the batch-norm statistics, as in the authors' code."""


def gradient_matching_loss(real_gradients: Sequence[Tensor], synthetic_gradients: Sequence[Tensor]) -> Tensor:
    """Compute ``Σ (1 - cos(g_real, g_syn))`` over all output units of all layers (https://arxiv.org/abs/2006.05929).

    g is the gradient of the weights that lead to one output channel or unit. Vectors, such as biases and norm weights,
    are left out, as in the authors' code.

    Args:
        real_gradients: One tensor per parameter; outputs are the first dimension.
        synthetic_gradients: One tensor per parameter, of the same shapes.

    Returns:
        A scalar.
    """
    losses = []
    for real, synthetic in zip(real_gradients, synthetic_gradients, strict=True):
        if real.ndim > 1:
            rows = real.flatten(1).float(), synthetic.flatten(1).float()
            # The authors' constant: a row without gradient, e.g. of a dead ReLU, adds 1.
            cosine = (rows[0] * rows[1]).sum(1) / (rows[0].norm(dim=1) * rows[1].norm(dim=1) + 1e-6)
            losses.append((1 - cosine).sum())
    return torch.stack(losses).sum()


class GradientMatching(Matching):
    """DC (https://arxiv.org/abs/2006.05929), and DSA (https://arxiv.org/abs/2102.08259) if the recipe augments.

    A network is used for ``outer_loop`` steps. Between two steps it is trained for ``inner_loop`` epochs on the
    synthetic images, so the images are matched on trained weights too. The distance is summed over classes, each with
    separate gradients.

    A batch of one class has no useful statistics. In a matching step batch norm therefore uses fixed statistics,
    computed on 16 real images of every class together. Between steps it uses batch statistics. The authors' code uses a
    running mean instead, which after its first step has moved only a tenth of the way.

    Args:
        outer_loop: Steps on the images with one network; None uses the published 1, 10, 20, 30, 40 or 50 for 1, 10,
            20, 30, 40 or 50 images per class.
        inner_loop: Training epochs of the network between two steps; None uses the published 1, 50, 25, 20, 15 or 10
            for the same numbers of images.
        network_lr: Learning rate of SGD without momentum for this training (0.01, as published).
        network_batch_size: Synthetic images per step of this training (256, as published).

    Raises:
        InputError: If an argument is out of its range, or the number of images per class has no published loops and
            none are given.
    """

    def __init__(
        self,
        outer_loop: int | None = None,
        inner_loop: int | None = None,
        *,
        network_lr: float = 0.01,
        network_batch_size: int = 256,
    ) -> None:
        at_least(1, outer_loop=outer_loop)
        at_least(0, inner_loop=inner_loop)
        positive(network_lr=network_lr)
        at_least(1, network_batch_size=network_batch_size)
        self.outer_loop = outer_loop
        self.inner_loop = inner_loop
        self.network_lr = network_lr
        self.network_batch_size = network_batch_size

    def attach(self, network: nn.Module, *, images_per_class: int) -> None:
        """See `Matching.attach`."""
        self.mixes_classes = has_batch_statistics(network)
        published = LOOPS.get(images_per_class)
        if published is None and (self.outer_loop is None or self.inner_loop is None):
            raise InputError(
                f"images_per_class {images_per_class} has no published loops: give outer_loop and inner_loop, e.g."
                f" {LOOPS[10][0]} and {LOOPS[10][1]} as for 10"
            )
        outer, inner = published or (1, 1)
        self.network_steps = outer if self.outer_loop is None else self.outer_loop
        self._inner_loop = inner if self.inner_loop is None else self.inner_loop
        network.requires_grad_(True)

    def terms(self, network: nn.Module, real: ClassBatch, synthetic: ClassBatch, num_classes: int) -> dict[str, Tensor]:
        """See `Matching.terms`."""
        weights = list(network.parameters())
        classes = [
            list(zip(batch.images.split(list(batch.counts)), batch.labels.split(list(batch.counts)), strict=True))
            for batch in (real, synthetic)
        ]

        def gradients_of(images: Tensor, labels: Tensor, *, create_graph: bool) -> Sequence[Tensor]:
            loss = F.cross_entropy(network(images).float(), labels)
            return torch.autograd.grad(loss, weights, create_graph=create_graph)

        losses, gradients = [], []
        with _fixed_statistics(network, torch.cat([images[:PER_CLASS] for images, _ in classes[0]])):
            for of_real, (images, labels) in zip(*classes, strict=True):
                wanted = gradients_of(*of_real, create_graph=False)
                images = images.detach().requires_grad_(synthetic.images.requires_grad)
                loss = gradient_matching_loss(wanted, gradients_of(images, labels, create_graph=images.requires_grad))
                # One class at a time, because a graph for second derivatives is large.
                if images.requires_grad:
                    gradients += torch.autograd.grad(loss, images)
                losses.append(loss.detach())
        terms = {"gradient": torch.stack(losses).sum()}
        return with_gradients(terms, synthetic.images, gradients) if gradients else terms

    def train_network(
        self, network: nn.Module, images: Tensor, labels: Tensor, *, augment: Callable[[Tensor, int], Tensor], seed: int
    ) -> None:
        """See `Matching.train_network`."""
        optimizer = torch.optim.SGD(network.parameters(), lr=self.network_lr)
        number = 0
        for epoch in range(self._inner_loop):
            order = torch.randperm(len(images), generator=epoch_generator(seed, epoch, Stream.MATCHING_TRAINING)).to(
                images.device
            )
            for chosen in order.split(self.network_batch_size):
                loss = F.cross_entropy(network(augment(images[chosen], number)).float(), labels[chosen])
                gradients = torch.autograd.grad(loss, optimizer.param_groups[0]["params"])
                for weight, gradient in zip(optimizer.param_groups[0]["params"], gradients, strict=True):
                    weight.grad = gradient
                optimizer.step()
                number += 1
        for weight in network.parameters():
            weight.grad = None


@contextmanager
def _fixed_statistics(network: nn.Module, images: Tensor) -> Iterator[None]:
    """Fix the batch-norm statistics to those computed from these images in one forward pass."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        yield
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
    with torch.no_grad():
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
