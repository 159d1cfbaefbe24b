"""Training of networks on a few images in memory, one by one or several at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import at_least, check, not_negative, positive
from ..core.sampling import Stream, derived_seed, epoch_generator, isolated_rng
from ..networks import fastest_memory_format, to_memory_format


class SmallSetTraining:
    """Training from scratch on a synthetic set, as in the literature's evaluation of such sets.

    SGD with momentum, weight decay and a constant learning rate. A little after half of the epochs the rate is divided
    by 10 and momentum is reset. There is no early stopping (https://arxiv.org/abs/2006.05929). As in the authors' code,
    ``epochs`` is the index of the last epoch, from 0: 1000 means 502 epochs at the full rate and 499 at a tenth. The
    order of images and the augmentation of a network depend on its seed.

    Args:
        epochs: Number of epochs minus one. The papers use 1000 with DSA and 300 without augmentation.
        lr: Learning rate of the first half (0.01, as published).
        momentum: Momentum of SGD (0.9, as published).
        weight_decay: Weight decay of all weights (5e-4, as published).
        batch_size: Images per step (256, as published; 64 in DataDAM's code).
        together: True trains all networks in one batched pass instead of one by one, with the same result. None does so
            if it is faster: on a GPU, and on a CPU if a step has at most 2^11 pixels (32 images of 8x8). Networks with
            batch norm or dropout are always trained one by one.

    Raises:
        InputError: If an argument is out of its range.
    """

    def __init__(
        self,
        epochs: int = 1000,
        *,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        batch_size: int = 256,
        together: bool | None = None,
    ) -> None:
        at_least(1, epochs=epochs, batch_size=batch_size)
        positive(lr=lr)
        check(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
        not_negative(weight_decay=weight_decay)
        self.epochs = epochs
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.together = together

    def __call__(
        self,
        networks: Sequence[nn.Module],
        images: Tensor,
        labels: Tensor,
        *,
        seeds: Sequence[int],
        augment: Callable[[Tensor, Sequence[int]], Tensor] | None = None,
    ) -> None:
        """Train networks with the same architecture in place and leave them in evaluation mode.

        Args:
            networks: Newly initialized networks.
            images: Normalized, shape ``(N, C, H, W)``.
            labels: Class indices, shape ``(N,)``.
            seeds: One seed per network.
            augment: Function of a batch and a key of non-negative integers; None trains on the images as they are.
        """
        pixels = min(self.batch_size, len(images)) * images.shape[2] * images.shape[3]
        # On a CPU, batched weights make convolutions slow; this pays only for small steps, where overhead dominates.
        faster = images.device.type != "cpu" or pixels <= 2**11
        together = faster if self.together is None else self.together
        if together and len(networks) > 1 and not any(isinstance(m, _ALONE) for m in networks[0].modules()):
            self._train_together(networks, images, labels, seeds, augment)
        else:
            for network, seed in zip(networks, seeds, strict=True):
                self._train_alone(network, images, labels, seed, augment)
        for network in networks:
            network.eval()

    def _train_alone(
        self, network: nn.Module, images: Tensor, labels: Tensor, seed: int, augment: Callable | None
    ) -> None:
        memory_format = fastest_memory_format(network)
        network.train()
        if memory_format is not torch.preserve_format:
            network.to(memory_format=memory_format)  # type: ignore[call-overload]

        def losses(batches: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
            return F.cross_entropy(network(to_memory_format(batches[0], memory_format)), targets[0])

        # Dropout draws from the global generators.
        with isolated_rng(derived_seed(Stream.EVALUATION_LAYERS, seed), images.device):
            self._run(list(network.parameters()), losses, images, labels, [seed], augment)

    def _train_together(
        self,
        networks: Sequence[nn.Module],
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int],
        augment: Callable | None,
    ) -> None:
        for network in networks:
            network.train()
        weights, buffers = torch.func.stack_module_state(list(networks))  # type: ignore[arg-type]
        skeleton = copy.deepcopy(networks[0]).to("meta")

        def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            return torch.func.functional_call(skeleton, (weights, buffers), (batch,))

        def losses(batches: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
            logits = torch.func.vmap(one)(weights, buffers, torch.stack(list(batches)))
            # The mean is per network, so each network's weights get the gradient of its mean loss.
            values = F.cross_entropy(logits.flatten(0, 1), torch.cat(list(targets)), reduction="none")
            return values.view(len(batches), -1).mean(1).sum()

        self._run(list(weights.values()), losses, images, labels, seeds, augment)
        with torch.no_grad():
            for index, network in enumerate(networks):
                for name, value in network.named_parameters():
                    value.copy_(weights[name][index])

    def _run(
        self,
        weights: list[Tensor],
        losses: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor],
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int],
        augment: Callable | None,
    ) -> None:
        first = self.epochs // 2 + 2
        step = 0
        for epoch in range(self.epochs + 1):
            if epoch in (0, first):
                optimizer = torch.optim.SGD(
                    weights,
                    lr=self.lr if epoch == 0 else self.lr / 10,
                    momentum=self.momentum,
                    weight_decay=self.weight_decay,
                )
            orders = [
                torch.randperm(len(images), generator=epoch_generator(seed, epoch, Stream.EVALUATION_ORDER))
                .to(images.device)
                .split(self.batch_size)
                for seed in seeds
            ]
            for chosen in zip(*orders, strict=True):
                batches = [images[index] for index in chosen]
                if augment is not None:
                    batches = [augment(batch, (seed, step)) for batch, seed in zip(batches, seeds, strict=True)]
                optimizer.zero_grad()
                losses(batches, [labels[index] for index in chosen]).backward()
                optimizer.step()
                step += 1
        for weight in weights:
            weight.grad = None


_ALONE = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
