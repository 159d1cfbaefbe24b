"""A step of DataDAM beside the same step written plainly, and training networks on a set one by one and together.

The reference follows the published loop as its authors describe and release it, in our words: all classes in one
pass, a copy of every ReLU's output by hooks, whole temporaries for absolute values and powers, PyTorch's default memory
format. Both sides get the same real and synthetic images, the same augmentation and the same weights, on one thread.
Times are CPU seconds, the sides taking turns; memory is the largest resident size of a process of its own for each side
less what it was before the step. Images are random: what they show changes neither.

    python benchmarks/dataset_distillation.py                          # 10 per class, 64 real images
    python benchmarks/dataset_distillation.py --images 50 --real 256 --norm batch --write
    python benchmarks/dataset_distillation.py --evaluation digits --write
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_recipes.modules.augmentation.siamese import (  # pyright: ignore[reportMissingImports]
    SiameseAugmentation,
)
from lightning_recipes.modules.matching import DataDAM  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.networks import create_network  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.synthetic.training import SmallSetTraining  # pyright: ignore[reportMissingImports]
from lightning_recipes.recipes import DatasetDistillation  # pyright: ignore[reportMissingImports]
from lightning_recipes.recipes._class_batches import (  # pyright: ignore[reportMissingImports]
    ClassBatches,
    RealImages,
)
from rows import append, provenance
from torch import Tensor, nn

CLASSES = 10


def our_model(images: int, real: int, norm: str, power: float) -> Any:
    """The recipe with random real images, ready for `training_step`."""
    model = DatasetDistillation(
        CLASSES,
        "convnet",
        network_args={"norm": norm},
        matching=DataDAM(power=power),
        images_per_class=images,
        batch_real=real,
        augmentation=SiameseAugmentation(),
    )
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(CLASSES * real, 3, 32, 32, generator=generator)
    model._batches = ClassBatches(
        RealImages([(pixels, torch.arange(CLASSES).repeat_interleave(real))], CLASSES),
        range(CLASSES),
        per_class=real,
        steps=1,
    )
    model.images.data = torch.randn(model.images.shape, generator=generator)
    return model


def our_step(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """A step as the trainer takes it, without the optimizer's."""

    def step(real: Tensor, labels: Tensor) -> Tensor:
        loss = model.training_step((real, labels), 0)
        model.images.grad = None
        loss.backward()
        return loss.detach()

    return step


def reference_step(model: Any, power: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The plain loop."""
    images = model.images.detach().clone().requires_grad_()
    count = 0

    def forward(network: Any, batch: Tensor) -> tuple[list[Tensor], Tensor]:
        kept: list[Tensor] = []
        hooks = [
            module.register_forward_hook(lambda module, inputs, output: kept.append(output.clone()))
            for module in network.modules()
            if isinstance(module, nn.ReLU)
        ]
        embedding = network.forward_features(batch).flatten(1)
        network.classifier(embedding)
        for hook in hooks:
            hook.remove()
        return kept, embedding

    def attention(features: Tensor) -> Tensor:
        maps = features.abs().pow(power).sum(1)
        return F.normalize(maps.flatten(1), dim=1)

    def step(real: Tensor, labels: Tensor) -> Tensor:
        nonlocal count
        network = create_network("convnet", num_classes=CLASSES, network_args=model._network_args[1], image_size=32)
        # Drawn anew as the loop does it, then the weights of the other side's step.
        network.load_state_dict(model._network[0].state_dict())
        network.requires_grad_(False)
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = True
        pairs = []
        for label in range(CLASSES):
            key = 0, 7, count, label
            pairs.append([model.augmentation(part, key) for part in (real[labels == label], images[label])])
        of_real, of_synthetic = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        count += 1
        real_features, real_embedding = forward(network, of_real)
        features, embedding = forward(network, of_synthetic)
        loss = torch.zeros(())
        for one, other in zip(real_features[:-1], features[:-1], strict=True):
            means = [attention(value).view(CLASSES, len(value) // CLASSES, -1).mean(1) for value in (one, other)]
            loss = loss + 100 * (means[0] - means[1]).square().sum()
        means = [value.view(CLASSES, len(value) // CLASSES, -1).mean(1) for value in (real_embedding, embedding)]
        loss = loss + 100 * 0.01 * (means[0] - means[1]).square().sum()
        images.grad = None
        loss.backward()
        step.gradient = images.grad  # type: ignore[attr-defined]
        return loss.detach()

    return step


def peak(side: str, options: argparse.Namespace, queue: Any) -> None:
    """Put the memory that steps of one side add, in MiB, into the queue; in a process of its own."""
    torch.set_num_threads(1)
    model = our_model(options.images, options.real, options.norm, options.power)
    step = our_step(model) if side == "ours" else reference_step(model, options.power)
    batch = model._batches[0]
    before = resident("VmRSS")
    for _ in range(2):
        step(*batch)
    queue.put(resident("VmHWM") - before)


def resident(which: str) -> float:
    """MiB of this process in memory now (VmRSS) or at most so far (VmHWM); Linux only."""
    return int(re.findall(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


def memory(side: str, options: argparse.Namespace) -> float:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak, args=(side, options, queue))
    process.start()
    value = queue.get(timeout=3600)
    process.join()
    return value


def steps(options: argparse.Namespace) -> dict[str, Any]:
    """Time, memory and losses of both sides."""
    torch.set_num_threads(1)
    model = our_model(options.images, options.real, options.norm, options.power)
    sides = {"ours": our_step(model), "reference": reference_step(model, options.power)}
    batch = model._batches[0]
    taken: dict[str, list[float]] = {name: [] for name in sides}
    difference, gradient = 0.0, 0.0
    for repeat in range(options.repeats + 1):
        losses = {}
        # Ours first, as the reference takes its weights.
        for name, step in sides.items():
            start = time.process_time()
            losses[name] = step(*batch)
            if repeat:
                taken[name].append(time.process_time() - start)
        difference = max(difference, (losses["ours"] / losses["reference"] - 1).abs().item())
        expected = sides["reference"].gradient  # type: ignore[attr-defined]
        gradient = max(gradient, ((model.images.grad - expected).norm() / expected.norm()).item())
    ratios = [one / other for one, other in zip(taken["reference"], taken["ours"], strict=True)]
    used = {name: memory(name, options) for name in sides}
    return {
        "images_per_class": options.images,
        "batch_real": options.real,
        "norm": options.norm,
        "power": options.power,
        "repeats": options.repeats,
        "ours_cpu_s": round(statistics.median(taken["ours"]), 3),
        "reference_cpu_s": round(statistics.median(taken["reference"]), 3),
        "times_faster": round(statistics.median(ratios), 2),
        "times_faster_min": round(min(ratios), 2),
        "times_faster_max": round(max(ratios), 2),
        "ours_mib": round(used["ours"]),
        "reference_mib": round(used["reference"]),
        "memory_ratio": round(used["ours"] / used["reference"], 3),
        "loss_difference": f"{difference:.1e}",
        "gradient_difference": f"{gradient:.1e}",
    }


EVALUATIONS = {
    # Channels, size, depth, width, images per class, epochs.
    "digits": (1, 8, 2, 32, 1, 30),
    "digits10": (1, 8, 2, 32, 10, 10),
    "cifar10": (3, 32, 3, 128, 10, 1),
}


def evaluation(options: argparse.Namespace) -> dict[str, Any]:
    """Training ten networks one by one beside training them together."""
    torch.set_num_threads(1)
    channels, size, depth, width, images, epochs = EVALUATIONS[options.evaluation]
    data = torch.randn(CLASSES * images, channels, size, size)
    labels = torch.arange(CLASSES).repeat_interleave(images)
    taken: dict[bool, list[float]] = {False: [], True: []}
    for repeat in range(options.repeats + 1):
        for together, times in taken.items():
            networks = [
                create_network(
                    "convnet",
                    num_classes=CLASSES,
                    in_chans=channels,
                    network_args={"depth": depth, "width": width},
                    image_size=size,
                )
                for _ in range(10)
            ]
            start = time.process_time()
            SmallSetTraining(epochs, together=together)(networks, data, labels, seeds=list(range(10)))
            if repeat:
                times.append(time.process_time() - start)
    ratios = [one / other for one, other in zip(taken[False], taken[True], strict=True)]
    return {
        "case": options.evaluation,
        "networks": 10,
        "epochs": epochs,
        "repeats": options.repeats,
        "together_cpu_s": round(statistics.median(taken[True]), 3),
        "one_by_one_cpu_s": round(statistics.median(taken[False]), 3),
        "times_faster": round(statistics.median(ratios), 2),
        "times_faster_min": round(min(ratios), 2),
        "times_faster_max": round(max(ratios), 2),
    }


def main() -> None:
    """Measure, print, and where asked append a row to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10, help="synthetic images per class")
    parser.add_argument("--real", type=int, default=64, help="real images per class in a step")
    parser.add_argument("--norm", default="instance", help="of the ConvNet-3: instance, or batch as in released code")
    parser.add_argument("--power", type=float, default=4.0, help="of the attention maps: 4, or 1 as in released code")
    parser.add_argument("--evaluation", choices=EVALUATIONS, help="measure the training of ten networks instead")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="append the row to the results")
    options = parser.parse_args()
    given = [f"--{name} {value}" for name, value in vars(options).items() if name != "write" and value is not None]
    if options.evaluation:
        given = [f"--evaluation {options.evaluation}", f"--repeats {options.repeats}"]
    command = "python benchmarks/dataset_distillation.py " + " ".join(given)
    row = {**provenance(command), **(evaluation(options) if options.evaluation else steps(options))}
    for name, value in row.items():
        print(f"{name:24}{value}")
    if options.write:
        name = "small_set_training" if options.evaluation else "dataset_distillation_step"
        print(f"appended to {append(row, name)}")


if __name__ == "__main__":
    main()
