"""Memory and time of a training step by local learning, beside ordinary training and gradient checkpointing.

Random images, one thread on a CPU; all sides in one memory format and one run, taking turns. Memory is the peak, within
a whole step, of what is allocated (not weights, momentum and images, but gradients), and of what autograd keeps for
backward passes (on a CPU only, and not for checkpointing and compiled modules, which hide it). On a GPU it is the peak
that torch reports, all included. With "compiled", each module and its head are one function of `torch.compile`; the
first steps, which compile, are not timed. The ratio of operations is the least that the ratio of times can be at one
speed of arithmetic; torch counts those of matrix products and convolutions, and none in compiled code.

    python benchmarks/local_learning_memory.py --network cifar_resnet32 --batch 64
    python benchmarks/local_learning_memory.py --methods "AugLocal d=2" "AugLocal d=2, compiled" --repeats 9
    python benchmarks/local_learning_memory.py --network vit_tiny_patch16_224 --batch 4 --size 224
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from lightning_recipes.modules import auxiliary as heads  # pyright: ignore[reportMissingImports]
from lightning_recipes.modules.networks import BlockNetwork, create_network  # pyright: ignore[reportMissingImports]
from lightning_recipes.recipes import Classification, LocalLearning  # pyright: ignore[reportMissingImports]
from rows import append, provenance
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential
from torch.utils.flop_counter import FlopCounterMode

Step = Callable[[], None]


class Kept:
    """Peak of the bytes that autograd keeps, storages counted once and parameters left out."""

    def __init__(self, model: nn.Module) -> None:
        self.outside = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.counts: dict[int, int] = {}
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> Any:
        """Count a tensor until nothing refers to it."""
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        holder = _Holder(tensor.detach())
        if key not in self.outside:
            self.counts[key] = self.counts.get(key, 0) + 1
            if self.counts[key] == 1:
                self.now += size
                self.peak = max(self.peak, self.now)
            weakref.finalize(holder, self._let_go, key, size)
        return holder

    def _let_go(self, key: int, size: int) -> None:
        self.counts[key] -= 1
        if not self.counts[key]:
            self.now -= size


class _Holder:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_bytes(model: nn.Module, step: Step) -> int:
    """Peak of what autograd keeps in a step."""
    kept = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda holder: holder.tensor):
        step()
    return kept.peak


def allocated_bytes(step: Step) -> int:
    """Peak of what a step allocates, above what there was before it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        peak = max(peak, now)
    return peak


def operations(step: Step) -> int:
    """Floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def seconds(step: Step) -> float:
    """Seconds of a step: of the CPU, or with a GPU of the wall clock."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    step()
    return time.process_time() - start


class Checkpointed(nn.Module):
    """A network of blocks in segments that are computed twice, as `checkpoint_sequential` does it."""

    def __init__(self, network: BlockNetwork, segments: int) -> None:
        super().__init__()
        self.chain = nn.Sequential(network.stem, *network.blocks, network.norm, network.pool, network.classifier)
        self.segments = segments

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return checkpoint_sequential(self.chain, self.segments, images, use_reentrant=False)


def built(name: str, network: str, size: int, segments: int) -> tuple[Classification, bool]:
    """A recipe by the name of its row, and whether its modules step one by one."""
    torch.manual_seed(0)
    body = create_network(network, num_classes=10, image_size=size)
    words = name.split(", ")
    if words[0] == "ordinary":
        return Classification(body, 10, image_size=size), False
    if words[0] == "checkpointing":
        if hasattr(body, "set_grad_checkpointing"):
            body.set_grad_checkpointing()  # type: ignore[operator]
        else:
            assert isinstance(body, BlockNetwork)
            body = Checkpointed(body, segments)
        return Classification(body, 10, image_size=size), False
    kinds: dict[str, Callable[[], Any]] = {
        "DGL": heads.DGL,
        "InfoPro": heads.InfoPro,
        "MAN of InfoPro": lambda: heads.MAN(heads.InfoPro(task=(0.5, 0.4), head="2c2f")),
        "MAN of DGL": lambda: heads.MAN(heads.DGL()),
        "FeatureReconstruction": heads.FeatureReconstruction,
        **{f"AugLocal d={depth}": lambda depth=depth: heads.AugLocal(depth) for depth in (1, 2, 3, 5)},
    }
    units = [r"blocks\.\d+"] if words[0] == "MAN of InfoPro" and network.startswith("cifar") else None
    modules = next((int(word.split()[0]) for word in words if word.endswith("modules")), None)
    model = LocalLearning(
        body,
        10,
        image_size=size,
        auxiliary=kinds[words[0]](),
        units=units,
        num_modules=modules,
        compile="compiled" in words,
    )
    return model, "per-module steps" in words


def prepared(model: Classification, steps_per_module: bool, images: Tensor, labels: Tensor) -> Step:
    """A training step, with SGD and momentum."""
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.01, momentum=0.9, weight_decay=1e-4, nesterov=True
    )

    def learn(index: int, loss: Tensor) -> None:
        with torch.autocast(images.device.type, enabled=False):
            loss.backward()
        if steps_per_module:
            optimizer.step()
            optimizer.zero_grad()

    model._learn = learn  # type: ignore[attr-defined]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=images.is_cuda):
            _, losses, _ = model._training_losses(images, labels)
            loss = model.reduce(losses)
        loss.backward()
        local: Any = getattr(model, "heads", [])
        for head in local:
            head.before_step(model.network)
        optimizer.step()
        optimizer.zero_grad()

    return step


def hides_kept(name: str) -> bool:
    """Return whether autograd's hooks do not see all that a side keeps."""
    return name == "checkpointing" or name.endswith(", compiled")


def main() -> None:
    """Measure, print and, where asked, append rows to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="cifar_resnet32")
    parser.add_argument("--batch", type=int, default=64, help="images a step")
    parser.add_argument("--size", type=int, default=32, help="height and width of an image")
    parser.add_argument(
        "--segments", type=int, default=4, help="of checkpointing, for networks without one of their own"
    )
    parser.add_argument(
        "--methods", nargs="+", default=["AugLocal d=2", "DGL", "InfoPro", "MAN of InfoPro", "MAN of DGL"]
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each side, which take turns")
    parser.add_argument("--write", action="store_true", help="append rows to results/local_learning_memory.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randn(options.batch, 3, options.size, options.size, device=device)
    labels = torch.arange(options.batch, device=device) % 10
    names = ["ordinary", "checkpointing", *options.methods]
    quoted = " ".join(f'"{name}"' for name in options.methods)
    facts = provenance(
        f"python benchmarks/local_learning_memory.py --network {options.network} --batch {options.batch}"
        f" --size {options.size} --segments {options.segments} --repeats {options.repeats} --methods {quoted}"
    )
    sides: dict[str, Step] = {}
    formats = set()
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        model, per_module = built(name, options.network, options.size, options.segments)
        model = model.to(device)
        formats.add(model.memory_format)
        assert len(formats) == 1
        sides[name] = step = prepared(model.train(), per_module, images, labels)
        step()
        rows[name] = {
            "network": options.network,
            "batch": options.batch,
            "image_size": options.size,
            "method": name,
            "modules": getattr(model, "num_modules", 1),
            **facts,
            "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "allocated_mib": allocated_bytes(step) / 2**20,
            "flops": 0 if name.endswith(", compiled") else operations(step),
            "kept_mib": 0.0 if hides_kept(name) or device.type == "cuda" else kept_bytes(model, step) / 2**20,
        }
        if device.type == "cuda":
            # One at a time, as another model's weights would count.
            rows[name]["seconds"] = [seconds(step) for _ in range(options.repeats)]
            del model, step
            sides.clear()
            gc.collect()
            torch.cuda.empty_cache()
    turns = {name: rows[name].pop("seconds", []) for name in names}
    for _ in range(options.repeats if device.type == "cpu" else 0):
        for name, step in sides.items():
            turns[name].append(seconds(step))
    first = rows["ordinary"]
    base = {key: first[key] for key in ("allocated_mib", "kept_mib", "flops")}
    for name, row in rows.items():
        ratios = [ours / theirs for ours, theirs in zip(turns[name], turns["ordinary"], strict=True)]
        row["seconds"] = round(statistics.median(turns[name]), 4)
        row["time_ratio"] = round(statistics.median(ratios), 3)
        for key, ratio in (("allocated_mib", "allocated_ratio"), ("kept_mib", "kept_ratio")):
            row[ratio] = round(row[key] / base[key], 4) if row[key] else ""
            row[key] = round(row[key], 2) if row[key] else ""
        operations_made = row.pop("flops")
        row["flops_ratio"] = round(operations_made / base["flops"], 3) if operations_made else ""
        print({key: value for key, value in row.items() if key not in facts}, flush=True)
        if options.write:
            append(row, "local_learning_memory")


if __name__ == "__main__":
    main()
