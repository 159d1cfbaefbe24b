"""Scores of the training samples in a file, written by one run and read by another."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..core.errors import InputError
from ..core.files import replaced


def save_scores(path: Path, scores: Tensor, *, kind: str, labels: Tensor | None) -> None:
    """Write scores as safetensors, with their name and a fingerprint of the labels in the metadata.

    Args:
        path: File to write.
        scores: float32 ``(N,)``, in the order of the training set; NaN for a sample without a score.
        kind: Name of the score.
        labels: Classes of the samples ``(N,)``; `load_scores` compares them. None if unknown.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"kind": kind, "labels": _fingerprint(labels)}
    with replaced(path) as file:
        safetensors.torch.save_file({"scores": scores.contiguous()}, file, metadata=metadata)


def load_scores(path: str, *, size: int, labels: Tensor | None) -> Tensor:
    """Read the scores of a training set.

    Args:
        path: A file written by `save_scores`.
        size: Number of training samples.
        labels: Classes of the training samples ``(N,)``; None if unknown.

    Returns:
        float32 ``(N,)``.

    Raises:
        InputError: If the file cannot be read, or holds the scores of other samples.
    """
    try:
        with safe_open(path, framework="pt") as file:
            known = (file.metadata() or {}).get("labels", "")
            scores = file.get_tensor("scores")
    except FileNotFoundError as error:
        raise InputError(
            f"no file of scores at {path}: make it by a run with the callback EL2N or Forgetting"
        ) from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a file of scores by EL2N or Forgetting ({error})") from error
    same_data = "run with the datamodule's arguments of the run that made it (split_seed, val_fraction, subset)"
    if len(scores) != size:
        raise InputError(
            f"{path} has scores of {len(scores)} samples but there are {size} training samples: {same_data}"
        )
    if labels is not None and known not in ("", _fingerprint(labels)):
        raise InputError(f"{path} has scores of samples with other labels than these in this order: {same_data}")
    return scores


def _fingerprint(labels: Tensor | None) -> str:
    if labels is None:
        return ""
    return hashlib.sha256(labels.to(torch.int64).contiguous().numpy().tobytes()).hexdigest()[:16]
