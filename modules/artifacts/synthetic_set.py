"""Distilled sets of images, sorted by class: their first images and their file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..augmentation.batches import normalize
from ..core.errors import InputError
from ..core.files import replaced

VERSION = 1
_FACTS = ("mean", "std", "space", "class_names", "image_size", "in_chans", "images_per_class", "version")


def k_center(points: Tensor, number: int) -> Tensor:
    """Choose points by greedy k-center: the point nearest the mean, then always the one farthest from all chosen.

    Args:
        points: Shape ``(N, …)``, compared by Euclidean distance.
        number: Number of points to choose, at most N.

    Returns:
        Indices ``(number,)``, in the order of choice.

    Raises:
        InputError: If ``number`` is larger than N.
    """
    if number > len(points):
        raise InputError(f"number must be at most that of the points, {len(points)}, but is {number}")
    points = points.flatten(1).float()
    points = points - points.mean(0)
    lengths = points.square().sum(1)

    def distance(index: int) -> Tensor:
        return lengths + lengths[index] - 2 * points @ points[index]

    chosen = [int(lengths.argmin())]
    nearest = distance(chosen[0])
    while len(chosen) < number:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distance(chosen[-1]))
    return torch.tensor(chosen)


def as_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Convert normalized images to uint8 pixels; values outside [0, 1] are clamped."""
    scale, offset = (torch.tensor(tuple(values), dtype=torch.float32).view(-1, 1, 1) for values in (std, mean))
    return ((images.detach().float().cpu() * scale + offset).clamp(0, 1) * 255).round().to(torch.uint8)


def through_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Round normalized images to 8 bits per channel, as if they were written to image files and read again."""
    return normalize(as_pixels(images, mean, std), mean, std).to(images.device)


def write_png(path: str | Path, pixels: Tensor) -> None:
    """Write an image, uint8 ``(C, H, W)`` with one or three channels."""
    array = pixels.permute(1, 2, 0).numpy()
    Image.fromarray(array[:, :, 0] if len(pixels) == 1 else array).save(path)


def save_set(
    folder: str | Path,
    images: Tensor,
    labels: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str],
    soft_labels: Tensor | None = None,
    facts: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write ``distilled.safetensors`` and, for one or three channels, ``distilled/<class>/<number>.png``.

    ``distilled.safetensors`` holds the normalized ``images``, float32 ``(N, C, H, W)``, and ``labels``, int64 ``(N,)``,
    sorted by class. It also holds ``soft_labels``, float32 ``(N, classes)``, if given. The other arguments are in its
    metadata as JSON.

    Args:
        folder: Folder to write to; created if missing.
        images: Normalized images, shape ``(N, C, H, W)``, sorted by class, with the same number per class.
        labels: Classes of the images, shape ``(N,)``.
        mean: Mean per channel on the scale [0, 1].
        std: Standard deviation per channel on the same scale.
        class_names: Names of the classes.
        soft_labels: Class probabilities to train with, shape ``(N, classes)``, e.g. from a teacher.
        facts: Further entries of the metadata, e.g. how the set was made.

    Returns:
        The file, and the folder of PNG files if there is one.

    Raises:
        InputError: If a file exists already, or images, labels, mean, std and class names are inconsistent.
    """
    number = len(images) // max(1, len(class_names))
    if labels.tolist() != [label for label in range(len(class_names)) for _ in range(number)] or not number:
        raise InputError(
            f"labels must be those of as many images of each of the {len(class_names)} class_names, class after class,"
            f" but are {_shortened(labels.tolist())} for {len(images)} images: sort the images by class"
        )
    _check_content(images, labels, mean, std, class_names, "save_set")
    _check_soft_labels(soft_labels, len(images), len(class_names), "save_set")
    Path(folder).mkdir(parents=True, exist_ok=True)
    file, pictures = Path(folder, "distilled.safetensors"), Path(folder, "distilled")
    for path in (file, pictures):
        if path.exists():
            raise InputError(f"{path} exists already, which is not overwritten: choose another folder with --run_dir")
    metadata = {
        "mean": list(mean),
        "std": list(std),
        "space": "normalized",
        "class_names": list(class_names),
        "image_size": images.shape[-1],
        "in_chans": images.shape[1],
        "images_per_class": number,
        "version": VERSION,
        **(facts or {}),
    }
    tensors = {"images": images.detach().float(), "labels": labels}
    if soft_labels is not None:
        tensors["soft_labels"] = soft_labels.detach().float()
    with replaced(file) as unfinished:
        safetensors.torch.save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
            unfinished,
            metadata={key: json.dumps(value, default=str) for key, value in metadata.items()},
        )
    if images.shape[1] not in (1, 3):
        return [file]
    pixels = as_pixels(images, mean, std)
    for index, label in enumerate(labels.tolist()):
        # Five digits first, so that the folders sort like the labels.
        place = pictures / f"{label:05d}_{str(class_names[label]).replace('/', '_')}"
        place.mkdir(parents=True, exist_ok=True)
        write_png(place / f"{index % number:05d}.png", pixels[index])
    return [file, pictures]


def read_facts(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a file written by `save_set`, without reading the images.

    Raises:
        InputError: If the file is missing or was not written by `save_set`.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no distilled set at {path}: write one with `recipes export`")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
        facts = {key: json.loads(value) for key, value in metadata.items()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no distilled set of `recipes export` ({error})") from error
    missing = [key for key in _FACTS if key not in facts]
    if missing:
        raise InputError(f"{path} does not say its {missing[0]}: write it with `recipes export` or save_set")
    if facts["space"] != "normalized" or facts["version"] != VERSION:
        raise InputError(
            f"{path} has space {facts['space']!r} and version {facts['version']}, but 'normalized' and {VERSION} can be"
            " read: export the set again"
        )
    return facts


def load_set(path: str | Path) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return images, labels and metadata of a file written by `save_set`.

    Raises:
        InputError: If the file is missing, was not written by `save_set`, or its parts are inconsistent.

    Examples:
        >>> facts = {"mean": [0.5], "std": [0.2], "class_names": ["cat", "dog"]}
        >>> paths = save_set("set", torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), **facts)
        >>> images, labels, facts = load_set("set/distilled.safetensors")
        >>> images.shape, facts["class_names"][labels[0]]
        (torch.Size([2, 1, 8, 8]), 'cat')
    """
    facts = read_facts(path)
    tensors = safetensors.torch.load_file(path)
    if {"images", "labels"} - set(tensors) or len(tensors["images"]) != len(tensors["labels"]):
        raise InputError(f"{path} needs as many labels as images: write it with `recipes export` or save_set")
    images, labels = tensors["images"], tensors["labels"]
    _check_content(images, labels, facts["mean"], facts["std"], facts["class_names"], str(path))
    if images.shape[1:] != (facts["in_chans"], facts["image_size"], facts["image_size"]):
        raise InputError(
            f"{path} says in_chans {facts['in_chans']} and image_size {facts['image_size']} but its images have shape"
            f" {tuple(images.shape[1:])}: write it with `recipes export` or save_set"
        )
    return images, labels, facts


def load_soft_labels(path: str | Path) -> Tensor | None:
    """Return the class probabilities of a file written by `save_set`, shape ``(N, classes)``, or None if it has none.

    Raises:
        InputError: If the file is missing, was not written by `save_set`, or holds invalid probabilities.
    """
    facts = read_facts(path)
    with safe_open(str(path), "pt") as file:
        if "soft_labels" not in file.keys():  # noqa: SIM118, it is no mapping
            return None
        soft_labels, number = file.get_tensor("soft_labels"), file.get_slice("images").get_shape()[0]
    _check_soft_labels(soft_labels, number, len(facts["class_names"]), str(path))
    return soft_labels


def _check_soft_labels(soft_labels: Tensor | None, number: int, classes: int, source: str) -> None:
    """Raise an `InputError` unless these are class probabilities for ``number`` images."""
    if soft_labels is None:
        return
    if soft_labels.shape != (number, classes) or not soft_labels.is_floating_point():
        raise InputError(
            f"{source}: soft_labels must be floating ({number}, {classes}), images by classes, but are"
            f" {soft_labels.dtype} {tuple(soft_labels.shape)}"
        )
    if not (soft_labels >= 0).all() or not torch.allclose(soft_labels.float().sum(1), torch.ones(number), atol=1e-3):
        raise InputError(f"{source}: soft_labels must be probabilities, which sum to 1 for each image: apply softmax")


def _check_content(
    images: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float], names: Sequence[str], source: str
) -> None:
    """Raise an `InputError` unless these form a set that can be trained on."""
    if images.ndim != 4 or images.shape[2] != images.shape[3] or not images.is_floating_point():
        raise InputError(
            f"{source}: images must be floating (N, C, H, W) with H equal to W but are {images.dtype}"
            f" {tuple(images.shape)}"
        )
    if not len(mean) == len(std) == images.shape[1] or min(std) <= 0:
        raise InputError(
            f"{source}: mean and std, which must be positive, need a value for each of the {images.shape[1]} channels"
            f" but are {list(mean)} and {list(std)}"
        )
    if labels.dtype != torch.long or labels.min() < 0 or labels.max() >= len(names):
        raise InputError(
            f"{source}: labels must be int64 in 0..{len(names) - 1}, as there are {len(names)} class names, but are"
            f" {labels.dtype} {_shortened(labels.tolist())}"
        )
    if not images.isfinite().all():
        raise InputError(f"{source}: images hold NaN or infinity: distil again with a smaller rate of the optimizer")


def _shortened(values: list) -> str:
    return f"[{', '.join(map(str, values[:8]))}{', …' if len(values) > 8 else ''}]"
