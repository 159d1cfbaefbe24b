"""For how many of timm's architectures local learning finds cuts and takes a step.

Every N-th architecture is built without memory (on the device `meta`), cut into all its units, and a whole step with
linear heads is taken. It works if every weight that ordinary training gives a gradient gets one.

    python benchmarks/timm_coverage.py --every 8
"""

from __future__ import annotations

import argparse
import collections
import warnings

import timm
import torch
from lightning_recipes.modules.auxiliary import DGL  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.errors import InputError  # pyright: ignore[reportMissingImports]
from lightning_recipes.recipes import Classification, LocalLearning  # pyright: ignore[reportMissingImports]
from rows import append, provenance
from torch import nn


def step(model: Classification, size: int) -> set[str]:
    """The network's weights that a step gives gradients."""
    model._learn = lambda index, loss: loss.backward()  # type: ignore[attr-defined]
    model.train()
    images = torch.zeros(4, model.in_chans, size, size, device="meta")
    labels = torch.zeros(4, dtype=torch.long, device="meta")
    model._training_losses(images, labels)[1].mean().backward()
    return {name for name, parameter in model.network.named_parameters() if parameter.grad is not None}


def outcome(name: str) -> tuple[str, str]:
    """How local learning fares with an architecture, and why."""
    config = timm.get_pretrained_cfg(name)
    channels, size, _ = getattr(config, "input_size", None) or (3, 224, 224)

    def network() -> nn.Module:
        with torch.device("meta"):
            return timm.create_model(name, num_classes=10)

    try:
        with torch.device("meta"):
            expected = step(Classification(network(), 10, in_chans=channels), size)
    except Exception as error:
        return "not measured", f"{type(error).__name__}: {error}"
    try:
        with torch.device("meta"):
            model = LocalLearning(network(), 10, auxiliary=DGL("linear"), in_chans=channels, image_size=size)
            missing = expected - step(model, size)
    except InputError as error:
        return "refused", str(error)
    except Exception as error:
        return "fails", f"{type(error).__name__}: {error}"
    return (
        ("fails", f"no gradient for {len(missing)} weights") if missing else ("works", f"{model.num_modules} modules")
    )


def main() -> None:
    """Try, print and, where asked, append a row to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=8, help="1 tries all architectures")
    parser.add_argument("--write", action="store_true", help="append a row to results/timm_coverage.csv")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    facts = provenance(f"python benchmarks/timm_coverage.py --every {options.every}")
    names = [n for n in timm.list_models() if not n.startswith(("cifar_", "test_")) and n != "convnet"]
    counts: collections.Counter[str] = collections.Counter()
    for name in names[:: options.every]:
        kind, reason = outcome(name)
        counts[kind] += 1
        print(f"{kind:13s}{name}: {reason[:150]}", flush=True)
    measured = sum(counts.values()) - counts["not measured"]
    row = {
        **facts,
        "timm": timm.__version__,
        "architectures": len(names),
        "tried": sum(counts.values()),
        **{kind.replace(" ", "_"): counts[kind] for kind in ("works", "refused", "fails", "not measured")},
        "share": round(counts["works"] / max(1, measured), 4),
    }
    print(row)
    if options.write:
        append(row, "timm_coverage")


if __name__ == "__main__":
    main()
