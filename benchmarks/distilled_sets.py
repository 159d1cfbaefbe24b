"""Distil a set with several seeds, test each as `recipes test` does, and print what the sets are worth.

Accuracies are those of all networks of all sets. Random real images and a k-center choice of the same size are
measured beside them in the same runs. Everything after `--` goes to `recipes fit` as it is.

    python benchmarks/distilled_sets.py digits/dm --sets 3
    python benchmarks/distilled_sets.py digits/datadam --sets 3 --write -- --model.images_per_class 10
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path

from recipe import recipes, without_places
from rows import append, provenance

BESIDE = {"random": "random real images", "kcenter": "k-center"}


def main() -> None:
    """Run, print, and where asked append a row for each kind of set."""
    ours, _, theirs = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe of dataset distillation, as after -c")
    parser.add_argument("--sets", type=int, default=3, help="seeds 0, 1, …")
    parser.add_argument("--write", action="store_true", help="append the rows to results/distilled_sets.csv")
    options = parser.parse_args(ours.split())
    runs, facts = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.sets):
            run = Path(folder) / str(seed)
            recipes(
                *("fit", "-c", options.recipe, *theirs.split(), "--seed_everything", str(seed), "--run_dir", str(run))
            )
            facts = json.loads((run / "summary.json").read_text())
            last = str(run / "checkpoints" / "last.ckpt")
            recipes("test", "-c", str(run / "recipe.yaml"), "--ckpt_path", last, "--run_dir", str(run / "test"))
            runs.append(json.loads((run / "test" / "metrics.json").read_text()))
            text = (run / "recipe.yaml").read_text()
            facts["per class"] = int(re.findall(r"images_per_class: (\d+)", text)[0])
    command = f"python benchmarks/distilled_sets.py {options.recipe} --sets {options.sets}"
    origin = provenance(command + (f" -- {without_places(theirs)}" if theirs else ""))
    for name in ("", "png", *BESIDE):
        stem = f"test/accuracy_{name}" if name else "test/accuracy"
        # A single network has no number.
        values = [v for run in runs for k, v in run.items() if re.fullmatch(rf"{stem}(_\d+)?", k) and _single(k, run)]
        row = {
            "recipe": options.recipe,
            "images_per_class": facts["per class"],
            "set": BESIDE.get(name, "distilled, 8-bit pixels" if name else "distilled"),
            **origin,
            "sets": len(runs),
            "networks": len(values) // len(runs),
            "steps": facts["optimizer steps"] if name in ("", "png") else 0,
            "test_accuracy_mean": round(statistics.mean(values), 4),
            "test_accuracy_std": round(statistics.pstdev(values), 4),
            "test_accuracies": " ".join(f"{value:.4f}" for value in values),
            "distillation_cpu_s": round(facts["cpu seconds"], 1) if name in ("", "png") else 0,
        }
        print(json.dumps(row, indent=1))
        if options.write:
            print(f"appended to {append(row, 'distilled_sets')}")


def _single(name: str, run: dict[str, float]) -> bool:
    """Whether a value is one network's, and not the mean of several."""
    return name[-1].isdigit() or f"{name}_0" not in run


if __name__ == "__main__":
    main()
