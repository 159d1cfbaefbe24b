"""A step with a teacher beside the same step written bare, and each loss beside cross-entropy.

Student and teacher see the same random 32x32 images on one thread, and the sides take turns. Memory is what the step
keeps for its backward pass, which a teacher must add nothing to.

    python benchmarks/distillation_step.py                       # cifar_resnet56 teaches cifar_resnet20, 100 classes
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning_recipes.modules import losses  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.networks import create_network  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.objectives import Distillation  # pyright: ignore[reportMissingImports]
from lightning_recipes.recipes import Classification  # pyright: ignore[reportMissingImports]
from rows import append, provenance
from torch import Tensor

CLASSES = 100


def seconds(step: Callable[[], Tensor], steps: int) -> float:
    """CPU seconds of a step, the median over several."""
    taken = []
    for _ in range(steps):
        start = time.process_time()
        step()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def kept_bytes(step: Callable[[], Tensor]) -> int:
    """Bytes that a step keeps for its backward pass."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(sizes.values())


def bare_step(student: torch.nn.Module, teacher: torch.nn.Module, images: Tensor, labels: Tensor) -> Callable:
    """Teacher forward and student step, by hand."""
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    def step() -> Tensor:
        arranged = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            target = (teacher(arranged) / 4).log_softmax(1)
        logits = student(arranged)
        kd = 16 * F.kl_div((logits / 4).log_softmax(1), target, reduction="batchmean", log_target=True)
        loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * kd
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def our_step(student: torch.nn.Module, teacher: torch.nn.Module | None, images: Tensor, labels: Tensor) -> Callable:
    """The same by `Classification` and `Distillation`; without a teacher the student's step alone."""
    objective = None if teacher is None else Distillation(teacher)
    model = Classification(student, CLASSES, image_size=32, objective=objective)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    def step() -> Tensor:
        _, values, _ = model._losses(images, labels)
        loss = model.reduce(values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def loss_step(loss: torch.nn.Module | None, batch: int) -> Callable:
    """Forward and backward of a loss on logits alone; None is cross-entropy."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(batch, CLASSES, generator=generator).requires_grad_()
    teacher, labels = torch.randn(batch, CLASSES, generator=generator), torch.arange(batch) % CLASSES

    def step() -> Tensor:
        value = F.cross_entropy(student, labels) if loss is None else loss(student, teacher, labels).mean()
        value.backward()
        return value

    return step


def main() -> None:
    """Measure, print and, where asked, append rows to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="cifar_resnet20", help="network for 32x32 images")
    parser.add_argument("--teacher", default="cifar_resnet56", help="network for 32x32 images")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--steps", type=int, default=5, help="steps of each turn")
    parser.add_argument("--write", action="store_true", help="append rows to results/distillation_step.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.randn(options.batch, 3, 32, 32), torch.arange(options.batch) % CLASSES

    def networks() -> tuple[torch.nn.Module, torch.nn.Module]:
        torch.manual_seed(0)
        return tuple(create_network(name, num_classes=CLASSES) for name in (options.student, options.teacher))  # type: ignore

    sides = {"bare": bare_step(*networks(), images, labels), "ours": our_step(*networks(), images, labels)}
    # The two compute the same: their losses agree step by step.
    torch.testing.assert_close(sides["bare"](), sides["ours"](), rtol=1e-4, atol=1e-4)
    memory = {name: kept_bytes(step) for name, step in sides.items()}
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, step in sides.items():
            turns[name].append(seconds(step, options.steps))
    ratios = [ours / bare for ours, bare in zip(turns["ours"], turns["bare"], strict=True)]
    alone = our_step(networks()[0], None, images, labels)
    alone()
    student_seconds = seconds(alone, options.steps * options.repeats)
    command = f"python benchmarks/distillation_step.py --student {options.student} --teacher {options.teacher}"
    command += f" --batch {options.batch} --repeats {options.repeats} --steps {options.steps}"
    facts = provenance(command)
    rows = [
        {
            "what": f"Distillation, {options.teacher} teaches {options.student}",
            **facts,
            "beside": "the same step written bare",
            "ours_s": round(statistics.median(turns["ours"]), 5),
            "baseline_s": round(statistics.median(turns["bare"]), 5),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_min": round(min(ratios), 3),
            "ratio_max": round(max(ratios), 3),
            "kept_bytes_ratio": round(memory["ours"] / memory["bare"], 4),
        }
    ]
    cross_entropy = seconds(loss_step(None, options.batch), 200)
    for name in ("KD", "ATS", "ISATS", "DKD", "DIST", "LSKD"):
        step = loss_step(getattr(losses, name)(), options.batch)
        step()
        shares = [(seconds(step, 100) - cross_entropy) / student_seconds for _ in range(options.repeats)]
        rows.append(
            {
                "what": f"{name} beyond cross-entropy",
                **facts,
                "beside": f"a step of {options.student}",
                "ours_s": round(statistics.median(shares) * student_seconds, 6),
                "baseline_s": round(student_seconds, 5),
                "ratio": round(statistics.median(shares), 5),
                "ratio_min": round(min(shares), 5),
                "ratio_max": round(max(shares), 5),
                "kept_bytes_ratio": "",
            }
        )
    for row in rows:
        print({key: value for key, value in row.items() if key not in facts})
        if options.write:
            append(row, "distillation_step")


if __name__ == "__main__":
    main()
