"""For how many of timm's architectures local learning finds cuts and takes a step, for each kind of head.

Every N-th architecture is built without memory (on the device `meta`), cut into all its units, and a whole step is
taken. It works if every weight that ordinary training gives a gradient gets one. With DGL the answer is about the cuts
alone, as its heads stand anywhere. So do PredSim's, which cannot be tried without memory.

    python benchmarks/timm_coverage.py --every 8
"""

from __future__ import annotations

import argparse
import collections
import warnings

import timm
import torch
from lightning_recipes.modules import auxiliary  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.core.errors import InputError  # pyright: ignore[reportMissingImports]
from lightning_recipes.recipes import Classification, LocalLearning  # pyright: ignore[reportMissingImports]
from rows import append, provenance
from torch import nn

HEADS = {
    "DGL": lambda: auxiliary.DGL("linear"),
    "AugLocal": lambda: auxiliary.AugLocal(2),
    "MAN": lambda: auxiliary.MAN(auxiliary.DGL("linear")),
    "InfoPro": auxiliary.InfoPro,
    "FeatureReconstruction": auxiliary.FeatureReconstruction,
}


def step(model: Classification, size: int) -> set[str]:
    """Return the network's weights that a step gives gradients."""
    model._learn = lambda index, loss: loss.backward()  # type: ignore[attr-defined]
    model.train()
    images = torch.zeros(4, model.in_chans, size, size, device="meta")
    labels = torch.zeros(4, dtype=torch.long, device="meta")
    model._training_losses(images, labels)[1].mean().backward()
    return {name for name, parameter in model.network.named_parameters() if parameter.grad is not None}


def outcomes(name: str, heads: list[str]) -> dict[str, tuple[str, str]]:
    """Return how local learning fares with an architecture, and why, for each kind of head."""
    config = timm.get_pretrained_cfg(name)
    channels, size, _ = getattr(config, "input_size", None) or (3, 224, 224)

    def network() -> nn.Module:
        with torch.device("meta"):
            return timm.create_model(name, num_classes=10)

    try:
        with torch.device("meta"):
            expected = step(Classification(network(), 10, in_chans=channels), size)
    except Exception as error:
        return dict.fromkeys(heads, ("not measured", f"{type(error).__name__}: {error}"))
    found: dict[str, tuple[str, str]] = {}
    for head in heads:
        try:
            with torch.device("meta"):
                model = LocalLearning(network(), 10, auxiliary=HEADS[head](), in_chans=channels, image_size=size)
                missing = expected - step(model, size)
        except InputError as error:
            found[head] = "refused", str(error)
        except Exception as error:
            found[head] = "fails", f"{type(error).__name__}: {error}"
        else:
            modules = f"{model.num_modules} modules"
            found[head] = ("fails", f"no gradient for {len(missing)} weights") if missing else ("works", modules)
    return found


def main() -> None:
    """Try, print and, where asked, append a row for each kind of head to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=8, help="1 tries all architectures")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS), help="kinds of heads")
    parser.add_argument("--write", action="store_true", help="append rows to results/timm_coverage.csv")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    chosen = "" if options.heads == list(HEADS) else f" --heads {' '.join(options.heads)}"
    facts = provenance(f"python benchmarks/timm_coverage.py --every {options.every}{chosen}")
    names = [n for n in timm.list_models() if not n.startswith(("cifar_", "test_")) and n != "convnet"]
    counts: dict[str, collections.Counter[str]] = {head: collections.Counter() for head in options.heads}
    for name in names[:: options.every]:
        for head, (kind, reason) in outcomes(name, options.heads).items():
            counts[head][kind] += 1
            print(f"{kind:13s}{head:22s}{name}: {reason[:150]}", flush=True)
    for head, count in counts.items():
        row = {
            "head": head,
            **facts,
            "timm": timm.__version__,
            "architectures": len(names),
            "tried": count.total(),
            **{kind.replace(" ", "_"): count[kind] for kind in ("works", "refused", "fails", "not measured")},
            "share": round(count["works"] / max(1, count.total() - count["not measured"]), 4),
        }
        print(row)
        if options.write:
            append(row, "timm_coverage")


if __name__ == "__main__":
    main()
