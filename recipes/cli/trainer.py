"""Trainer of the command line: Lightning's, with the methods `export` and `temperatures`."""

from __future__ import annotations

import contextlib
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from ...modules.artifacts.network_file import load_network, save_network
from ...modules.core.errors import InputError, RunError
from ...modules.core.files import replaced
from .checkpoint_io import WholeCheckpoints
from .tools.temperatures import temperatures

Format = Literal["safetensors", "torch_export", "onnx"]


class RecipesTrainer(Trainer):
    """Lightning's Trainer with two more commands, and checkpoints that are never half-written."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = WholeCheckpoints()

    def export(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        formats: list[Format] | None = None,
    ) -> None:
        """Write the network of a checkpoint to the run folder, for use without this project.

        Each file has the plain network, which maps normalized images to logits, and the facts to use it: class names,
        image size, mean and std. Files that can be read back here are tested: their outputs are compared with the
        network's.

        For a recipe that makes images, the images are written: as ``distilled.safetensors``, read by `DistilledImages`,
        and as a folder of PNG files.

        Args:
            model: The recipe; its attribute ``network`` is exported.
            datamodule: The data, with class names and preprocessing.
            ckpt_path: Checkpoint with the weights.
            formats: Formats to write: ``safetensors`` (weights, read by `load_network`), ``torch_export`` (a
                `torch.export` program for any batch size) and ``onnx``. By default all formats that are installed.

        Raises:
            InputError: If the recipe has no network, the data has no image size, a format's package is missing, or a
                file exists already.
            RunError: If a file that was read back gives other logits.
        """
        if hasattr(model, "export_set"):
            if ckpt_path is not None:
                model.on_load_checkpoint(_load(model, ckpt_path))
            for path in model.export_set(Path(self.default_root_dir), datamodule):  # type: ignore[operator]
                print(path)
            return
        network = getattr(model, "network", None)
        if not isinstance(network, nn.Module):
            raise InputError(f"{type(model).__name__} has no attribute `network` to export")
        if getattr(datamodule, "image_size", None) is None:
            raise InputError("export needs data that says its image_size, e.g. --data Digits")
        if ckpt_path is not None:
            _load(model, ckpt_path)
        network = network.cpu().eval()
        facts = _facts(model, datamodule)
        folder = Path(self.default_root_dir)
        images = torch.rand(2, facts["in_chans"], facts["image_size"], facts["image_size"])
        if formats is None:
            formats = ["safetensors", "torch_export", *(["onnx"] if find_spec("onnxscript") else [])]  # type: ignore
        for name in formats:  # type: ignore[union-attr]
            suffix, write = _WRITERS[name]
            file = folder / f"network.{suffix}"
            if file.exists():
                raise InputError(
                    f"{file} exists already, which is not overwritten: choose another folder with --run_dir"
                )
            with torch.no_grad(), replaced(file) as unfinished:
                difference = write(network, unfinished, images, facts)
                if difference is not None and not difference <= _TOLERANCE:
                    raise RunError(f"{file} was not kept: read back, it gives logits that differ by {difference:.1e}")
            checked = "" if difference is None else f", read back: outputs differ by {difference:.1e} at most"
            print(f"{file} ({file.stat().st_size / 1000:,.0f} kB{checked})")

    def temperatures(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        tau_true: list[float] | None = None,
        tau_wrong: list[float] | None = None,
        part: Literal["train", "val"] = "train",
    ) -> None:
        """Show the effect of asymmetric temperature scaling on a checkpoint's network, for each pair of temperatures.

        Writes ``temperatures.csv``, ``logits.safetensors`` and, with matplotlib, ``temperatures.png`` to the run
        folder.

        Args:
            model: The recipe with the teacher network.
            datamodule: The data that students will learn from; None if the recipe has its own data.
            ckpt_path: Checkpoint with the weights.
            tau_true: Temperatures of the true class; by default 1 to 6, as the paper's authors search
                (https://arxiv.org/abs/2210.04427). All pairs are evaluated, also if ``tau_true`` is the lower one.
            tau_wrong: Temperatures of all other classes; by default 1 to 5.
            part: Images to evaluate: one epoch of the training images, augmented as for a student, or the validation
                images.

        Raises:
            InputError: If a temperature is not positive, the model returns no logits, a file exists already, the data
                has no such part or no class indices, or there are several processes.
        """
        temperatures(
            self,
            model,
            datamodule,
            ckpt_path=ckpt_path,
            tau_true=tau_true if tau_true is not None else [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            tau_wrong=tau_wrong if tau_wrong is not None else [1.0, 2.0, 3.0, 4.0, 5.0],
            part=part,
        )


def _load(model: LightningModule, ckpt_path: str) -> dict[str, Any]:
    checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
    model.load_state_dict(checkpoint["state_dict"], strict=model.strict_loading)
    return checkpoint


def _facts(model: LightningModule, data: Any) -> dict[str, Any]:
    """Return the facts that a user of the network needs."""
    name = model.hparams.get("network")
    return {
        "name": name if isinstance(name, str) else None,
        "network_args": dict(model.hparams.get("network_args") or {}),
        "num_classes": int(getattr(model, "num_classes", data.num_classes)),
        "in_chans": int(data.in_chans),
        "image_size": int(data.image_size),
        "mean": [float(value) for value in data.mean],
        "std": [float(value) for value in data.std],
        "class_names": [str(value) for value in data.class_names],
        "preprocessing": dict(getattr(data, "preprocessing", {})),
    }


def _safetensors(network: nn.Module, file: Path, images: Tensor, facts: dict[str, Any]) -> float:
    save_network(file, network, **facts)
    return _difference(network, load_network(file)[0], images)


def _torch_export(network: nn.Module, file: Path, images: Tensor, facts: dict[str, Any]) -> float:
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with file.open("wb") as stream:
        torch.export.save(program, stream, extra_files={"facts.json": json.dumps(facts)})
    with file.open("rb") as stream:
        return _difference(network, torch.export.load(stream).module(), images)


def _onnx(network: nn.Module, file: Path, images: Tensor, facts: dict[str, Any]) -> None:
    if not find_spec("onnxscript"):
        raise InputError("format onnx needs the extra: pip install 'lightning-recipes[onnx]'")
    # Older exporters print their rewrites.
    with contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    program.model.metadata_props.update({key: json.dumps(value) for key, value in facts.items()})
    program.save(file, external_data=False)


# Largest allowed difference between the logits of the network and of the file read back.
_TOLERANCE = 1e-3

_WRITERS = {
    "safetensors": ("safetensors", _safetensors),
    "torch_export": ("pt2", _torch_export),
    "onnx": ("onnx", _onnx),
}


def _difference(network: nn.Module, other: nn.Module, images: Tensor) -> float:
    return (network(images) - other(images)).abs().max().item()
