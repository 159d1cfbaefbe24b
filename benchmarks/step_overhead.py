"""Time per training step of `recipes fit`, all its default callbacks and logging on, beside a bare PyTorch loop.

Both train the same network on the same batches with the same optimizer in float32, on one thread, and take turns.

    python benchmarks/step_overhead.py                        # tiny: digits/supervised
    python benchmarks/step_overhead.py --network cifar_resnet20  # realistic: CIFAR-10's shape and batch size
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from typing import ClassVar

import torch
from lightning.pytorch import Callback
from lightning_recipes.datamodules import CIFAR10, Digits  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.networks import create_network  # pyright: ignore[reportMissingImports]
from lightning_recipes.recipes.cli.trainer_cli import run  # pyright: ignore[reportMissingImports]
from rows import append, provenance
from torch import Tensor


class RandomCIFAR10(CIFAR10):
    """Random pixels in place of CIFAR-10's files, 20 batches of them."""

    def _read(self, part: str) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (2_880, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return images, torch.arange(2_880) % 10


class EpochSeconds(Callback):
    """CPU seconds per step of each epoch but the first, from its first batch to its last."""

    measured: ClassVar[list[float]] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Start."""
        self.start = time.process_time()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Stop before validation."""
        if batch_idx == trainer.num_training_batches - 1 and trainer.current_epoch:
            self.measured.append((time.process_time() - self.start) / trainer.num_training_batches)


def through_recipes(options: list[str], epochs: int, folder: str) -> list[float]:
    """CPU seconds per step of each epoch but the first of `recipes fit`."""
    EpochSeconds.measured = []
    arguments = ["fit", *options, f"--trainer.max_epochs={epochs + 1}", f"--trainer.default_root_dir={folder}"]
    with contextlib.redirect_stdout(io.StringIO()):
        run([*arguments, "--trainer.callbacks+=EpochSeconds"])
    return EpochSeconds.measured


def bare(network: torch.nn.Module, data: Digits | CIFAR10, epochs: int, *, channels_last: bool) -> list[float]:
    """CPU seconds per step of each epoch but the first of a plain loop."""
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    data.setup("fit")
    loader = data.train_dataloader()
    measured = []
    for epoch in range(epochs + 1):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        start = time.process_time()
        for batch in loader:
            images, labels = data.on_after_batch_transfer(batch, 0)
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch:
            measured.append((time.process_time() - start) / len(loader))
    return measured


def main() -> None:
    """Measure, print and, where asked, append a row to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="digits", help="digits, or a network for 32x32 images in batches of 128")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--epochs", type=int, default=5, help="measured epochs of each turn")
    parser.add_argument("--write", action="store_true", help="append the row to results/step_overhead.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = ["-c", "digits/supervised"]
    if options.network != "digits":
        recipe += ["--data=RandomCIFAR10", "--data.batch_size=128", f"--model.network={options.network}"]
        recipe += ["--model.network_args=null", "--model.channels_last=true"]
    ours, plain = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            ours.append(statistics.median(through_recipes(recipe, options.epochs, folder)))
        if options.network == "digits":
            args = {"depth": 2, "width": 32}
            network = create_network("convnet", num_classes=10, in_chans=1, network_args=args, image_size=8)
            plain.append(
                statistics.median(bare(network, Digits(batch_size=64, seed=0), options.epochs, channels_last=False))
            )
        else:
            network = create_network(options.network, num_classes=10)
            data = RandomCIFAR10(batch_size=128, seed=0)
            plain.append(statistics.median(bare(network, data, options.epochs, channels_last=True)))
        print(f"recipes {1000 * ours[-1]:.2f} ms, bare {1000 * plain[-1]:.2f} ms of CPU time per step", flush=True)
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    row = {
        "network": options.network,
        **provenance(" ".join(["python benchmarks/step_overhead.py", *sys.argv[1:]]).replace(" --write", "")),
        "repeats": options.repeats,
        "recipes_cpu_ms_per_step": round(1000 * statistics.median(ours), 3),
        "bare_cpu_ms_per_step": round(1000 * statistics.median(plain), 3),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
    }
    for name, value in row.items():
        print(f"{name:26}{value}")
    if options.write:
        print(f"appended to {append(row, 'step_overhead')}")


if __name__ == "__main__":
    main()
