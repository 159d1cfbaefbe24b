"""Layouts of image folders."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..modules.core.errors import InputError


def part_folders(root: str) -> dict[str, str]:
    """Return the folder of each part in ``root``: "train", "val" if it is for validation, and "test".

    Raises:
        InputError: If ``root`` is missing or has no folders.
    """
    layout = "<train or test>/<class>/<images>"
    if not os.path.isdir(root):
        raise InputError(
            f"no image folder at {root}: unpack your images there as {layout},"
            " or point --data.root or RECIPES_DATA at them"
        )
    parts = {part: os.path.join(root, part) for part in subfolders(root) if part in ("train", "val", "test")}
    if not parts:
        parts = {"train": root}
    if not subfolders(next(iter(parts.values()))):
        raise InputError(f"no class folders in {next(iter(parts.values()))}: lay out {root} as {layout}")
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    return {part: parts[part] for part in ("train", "val", "test") if part in parts}


def subfolders(folder: str) -> list[str]:
    """Return the sorted names of the visible folders in a folder."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def image_files(folder: str) -> list[str]:
    """Return the sorted paths of the images in a folder and its subfolders; an empty list if there is no such folder.

    Raises:
        InputError: If a link leads back to a parent folder, or a name with an image suffix is not a file.
    """
    return sorted(_images_below(folder, (os.path.realpath(folder),))) if os.path.isdir(folder) else []


def _images_below(folder: str, above: tuple[str, ...]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                # Only a link can lead back to a parent folder.
                real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
                if real in above:
                    raise InputError(f"{entry.path} is a link to a folder that it lies in: remove the link")
                yield from _images_below(entry.path, (*above, real))
            elif entry.name.lower().endswith(IMG_EXTENSIONS) and not entry.name.startswith("."):
                if not entry.is_file():
                    state = "is a link to nothing" if not os.path.exists(entry.path) else "is a pipe or device"
                    raise InputError(f"{entry.path} {state} and no image: remove it")
                yield entry.path


def labelled_files(folder: str, class_names: tuple[str, ...]) -> tuple[np.ndarray, Tensor]:
    """Return encoded paths and labels of the images in the class folders of a part.

    Raises:
        InputError: If the class folders differ from ``class_names``, or one of them has no images.
    """
    if odd := set(subfolders(folder)) ^ set(class_names):
        name = min(odd)
        state = "has no" if name in class_names else "is the only part with a"
        raise InputError(
            f"{folder} {state} class folder {name!r} ({len(odd)} differ): all parts need the same class folders"
        )
    files = [image_files(os.path.join(folder, name)) for name in class_names]
    for name, paths in zip(class_names, files, strict=True):
        if not paths:
            raise InputError(
                f"class folder {os.path.join(folder, name)} holds no images"
                f" ({', '.join(sorted(IMG_EXTENSIONS))}): add some, or remove the folder from every part"
            )
    counts = torch.tensor([len(paths) for paths in files])
    return encoded([path for paths in files for path in paths]), torch.arange(len(files)).repeat_interleave(counts)


def encoded(paths: list[str]) -> np.ndarray:
    """Return paths as an array of bytes: strings would be copied into every worker over time."""
    return np.array([os.fsencode(path) for path in paths])
