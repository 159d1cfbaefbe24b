"""A PGD step beside the same passes written bare, and beside the attack of `torchattacks`.

All sides see the same network and the same random 32x32 images on one thread and take turns. A step is a PGD attack of
10 iterations and one optimizer step on what it found.

    python benchmarks/adversarial_step.py                          # cifar_resnet20, batch 128
    pip install --no-deps torchattacks && python benchmarks/adversarial_step.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from lightning_recipes.modules.attacks import PGD  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.networks import create_network  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.networks.normalized import Normalized  # pyright: ignore[reportMissingImports]
from lightning_recipes.recipes import AdversarialClassification  # pyright: ignore[reportMissingImports]
from rows import append, provenance
from torch import Tensor, nn

EPS, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
    """The same for all sides."""
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


def our_step(network: nn.Module, pixels: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """By `AdversarialClassification`."""
    attack = PGD(EPS, STEP_SIZE, STEPS)
    model = AdversarialClassification(network, 10, image_size=32, mean=MEAN, std=STD, attack=attack)
    images, optimizer = model._normalised(pixels), optimizer_of(model)

    def step() -> Tensor:
        model._attacked = None
        loss = model.reduce(model._training_losses(images, labels)[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def bare_step(network: nn.Module, pixels: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """As many forward and backward passes and the same arithmetic, with nothing around them."""
    network = Normalized(network.to(memory_format=torch.channels_last), MEAN, STD)  # type: ignore[call-overload]
    pixels, optimizer = pixels.contiguous(memory_format=torch.channels_last), optimizer_of(network)

    def step() -> Tensor:
        network.eval()
        found = (pixels + EPS * (2 * torch.rand_like(pixels) - 1)).clamp(0, 1)
        for _ in range(STEPS):
            found.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(found), labels), found)
            found = found.detach() + STEP_SIZE * gradient.sign()
            found = torch.minimum(torch.maximum(found, pixels - EPS), pixels + EPS).clamp(0, 1)
        return update(network, found, labels, optimizer)

    return step


def torchattacks_step(network: nn.Module, pixels: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """By the package, as its documentation says: its attack, then an ordinary step."""
    import torchattacks  # pyright: ignore[reportMissingImports]

    network = Normalized(network, MEAN, STD)
    attack, optimizer = torchattacks.PGD(network, eps=EPS, alpha=STEP_SIZE, steps=STEPS), optimizer_of(network)
    return lambda: update(network, attack(pixels, labels), labels, optimizer)


def update(network: nn.Module, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """An ordinary step on attacked images."""
    network.train()
    loss = F.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def main() -> None:
    """Measure, print and, where asked, append rows to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="cifar_resnet20", help="network for 32x32 images")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each side")
    parser.add_argument("--write", action="store_true", help="append rows to results/adversarial_step.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pixels, labels = torch.rand(options.batch, 3, 32, 32), torch.arange(options.batch) % 10
    sides = {"ours": our_step, "bare": bare_step}
    if find_spec("torchattacks"):
        sides["torchattacks"] = torchattacks_step
    steps = {}
    for name, build in sides.items():
        torch.manual_seed(0)
        steps[name] = build(create_network(options.network, num_classes=10), pixels, labels)
        steps[name]()  # warm up
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.repeats):
        for name, step in steps.items():
            start = time.process_time()
            step()
            taken[name].append(time.process_time() - start)
    for beside in list(steps)[1:]:
        ratios = [ours / theirs for ours, theirs in zip(taken["ours"], taken[beside], strict=True)]
        row = {
            "network": options.network,
            "beside": beside,
            **provenance(f"python benchmarks/adversarial_step.py --network {options.network} --batch {options.batch}"),
            "ours_cpu_s": round(statistics.median(taken["ours"]), 3),
            "beside_cpu_s": round(statistics.median(taken[beside]), 3),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_min": round(min(ratios), 3),
            "ratio_max": round(max(ratios), 3),
        }
        for name, value in row.items():
            print(f"{name:14}{value}")
        if options.write:
            print(f"appended to {append(row, 'adversarial_step')}")


if __name__ == "__main__":
    main()
