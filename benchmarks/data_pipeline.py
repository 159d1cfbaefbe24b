"""Speed of the training loader for small images, beside torchvision's data set and transforms with worker processes.

Both read the same images in random order, crop them at random after padding by 4, flip, normalise, and hand over
float32 batches of 128. Ours runs in one thread of the main process; torchvision's runs in `--workers` processes.
They take turns in one run. The CPU time of workers counts.

    python benchmarks/data_pipeline.py                      # 50,000 random 32x32 images
    python benchmarks/data_pipeline.py --root FOLDER --write  # the training images of an image folder
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from lightning_recipes.datamodules import CIFAR10, ImageFolder  # pyright: ignore[reportMissingImports]
from PIL import Image
from rows import append, provenance
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

BATCH = 128


class SyntheticCIFAR10(CIFAR10):
    """Random pixels in place of CIFAR-10's files."""

    def __init__(self, number: int) -> None:
        super().__init__(batch_size=BATCH, val_fraction=0.0001, seed=0)
        self.number = number

    def _read(self, part: str) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (self.number, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return images, torch.arange(self.number) % 10


class TorchvisionStyle(Dataset):
    """What `torchvision.datasets.CIFAR10.__getitem__` does: an array to a PIL image, then the transform."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable) -> None:
        self.data = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def measure(epoch: Callable[[], int]) -> tuple[float, float]:
    """Images per second and CPU seconds, of this process and its finished children, of one epoch."""

    def cpu() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    begin, begin_cpu = time.perf_counter(), cpu()
    images = epoch()
    return images / (time.perf_counter() - begin), cpu() - begin_cpu


def main() -> None:
    """Measure, print a table and, where asked, append a row to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="an image folder of 32x32 images in place of random pixels")
    parser.add_argument("--images", type=int, default=50_000, help="number of random images")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each")
    parser.add_argument("--workers", type=int, default=2, help="torchvision's worker processes")
    parser.add_argument("--write", action="store_true", help="append the row to results/data_pipeline.csv")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    if arguments.root:
        datamodule = ImageFolder(
            arguments.root, image_size=32, in_memory=True, batch_size=BATCH, seed=0, mean=CIFAR10.mean, std=CIFAR10.std
        )
    else:
        datamodule = SyntheticCIFAR10(arguments.images)
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    train_set = datamodule.train_set
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(datamodule.mean, datamodule.std),
        ]
    )
    theirs = DataLoader(
        TorchvisionStyle(train_set.images, train_set.labels, transform),  # type: ignore
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=arguments.workers,
    )

    def our_epoch(epoch: int) -> int:
        loader.sampler.set_epoch(epoch)  # type: ignore
        return sum(len(datamodule.on_after_batch_transfer(batch, 0)[1]) for batch in loader)

    def their_epoch() -> int:
        return sum(len(labels) for _, labels in theirs)

    ours_measured, theirs_measured = [], []
    our_epoch(0)  # warm-up
    for repeat in range(arguments.repeats):
        ours_measured.append(measure(lambda: our_epoch(repeat + 1)))  # noqa: B023
        theirs_measured.append(measure(their_epoch))
        print(f"{repeat + 1}: {ours_measured[-1][0]:9,.0f} {theirs_measured[-1][0]:9,.0f} images/s", flush=True)

    speed, cpu = (statistics.median(column) for column in zip(*ours_measured, strict=True))
    their_speed, their_cpu = (statistics.median(column) for column in zip(*theirs_measured, strict=True))
    command = " ".join(["python benchmarks/data_pipeline.py", *shown(sys.argv[1:])])
    row = {
        **provenance(command.replace(" --write", "")),
        "images": len(theirs.dataset),  # type: ignore
        "repeats": arguments.repeats,
        "ours_images_per_s": round(speed),
        "torchvision_images_per_s": round(their_speed),
        "ratio": round(speed / their_speed, 1),
        "ours_cpu_s": round(cpu, 2),
        "torchvision_cpu_s": round(their_cpu, 2),
        "cpu_ratio": round(their_cpu / cpu, 1),
    }
    print(f"\nmedian of {arguments.repeats} epochs of {row['images']:,} images, {row['hardware']}")
    print(f"{'':28}{'ours':>10}{'torchvision':>14}{'ratio':>8}")
    print(f"{'images per second':28}{speed:10,.0f}{their_speed:14,.0f}{row['ratio']:8}")
    print(f"{'CPU seconds per epoch':28}{cpu:10.2f}{their_cpu:14.2f}{row['cpu_ratio']:8}")
    if arguments.write:
        print(f"appended to {append(row, 'data_pipeline')}")


def shown(arguments: list[str]) -> list[str]:
    """The arguments without the place of the data on this machine."""
    return ["FOLDER" if before == "--root" else this for before, this in zip(["", *arguments], arguments, strict=False)]


if __name__ == "__main__":
    main()
