"""Train a recipe with several seeds, test each run's best checkpoint, and print mean and standard deviation.

Everything after `--` goes to `recipes fit` as it is. The test images are looked at once a run, after training. Runs
whose test ends with AutoAttack have columns of their own.

    python benchmarks/recipe.py digits/supervised --seeds 3
    python benchmarks/recipe.py cifar10/supervised fast --seeds 3 --write cifar10 -- --data.download true
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import append, provenance


def main() -> None:
    """Run, print, and where asked append a row to the results."""
    ours, _, theirs = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="+", help="recipe and overlays, as after -c")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, …")
    parser.add_argument("--write", metavar="NAME", help="append the row to results/NAME.csv")
    options = parser.parse_args(ours.split())
    configs = [word for name in options.recipe for word in ("-c", name)]
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            run = Path(folder) / str(seed)
            recipes("fit", *configs, *theirs.split(), "--seed_everything", str(seed), "--run_dir", str(run))
            summary = json.loads((run / "summary.json").read_text())
            best = str(run / "checkpoints" / "best.ckpt")
            recipes("test", "-c", str(run / "recipe.yaml"), "--ckpt_path", best, "--run_dir", str(run / "test"))
            runs.append(summary | json.loads((run / "test" / "metrics.json").read_text()))
            print(f"seed {seed}: {runs[-1]}", flush=True)

    def mean(name: str) -> float:
        return statistics.mean(run[name] for run in runs)

    def spread(name: str) -> float:
        return statistics.stdev(run[name] for run in runs) if len(runs) > 1 else float("nan")

    attacked = "test/autoattack_accuracy" in runs[0]
    (monitor,) = (name.removeprefix("best ") for name in runs[0] if name.startswith("best val/"))
    command = f"python benchmarks/recipe.py {' '.join(options.recipe)} --seeds {options.seeds}"
    row = {
        "recipe": " ".join(options.recipe),
        **provenance(command + (f" -- {without_places(theirs)}" if theirs else "")),
        "seeds": options.seeds,
        "epochs": round(mean("epochs")),
        "test_accuracy_mean": round(mean("test/accuracy"), 4),
        "test_accuracy_std": round(spread("test/accuracy"), 4),
        # Attacked runs may monitor another accuracy.
        **{
            f"{which}_val{'' if attacked else '_accuracy'}_mean": round(mean(f"{which} {monitor}"), 4)
            for which in ("best", "last")
        },
        **(
            {
                "autoattack_accuracy_mean": round(mean("test/autoattack_accuracy"), 4),
                "autoattack_accuracy_std": round(spread("test/autoattack_accuracy"), 4),
                **{
                    f"{name}_mean": round(mean(f"test/{name}"), 4)
                    for name in ("clean_accuracy", "fgsm_accuracy", "pgd20_accuracy", "masking_signs")
                },
            }
            if attacked
            else {}
        ),
        "samples": round(mean("samples")),
        "wall_s": round(mean("wall seconds"), 1),
        "cpu_s": round(mean("cpu seconds"), 1),
        "peak_memory_mib": round(mean("peak memory MiB")),
    }
    for name, value in row.items():
        print(f"{name:26}{value}")
    if options.write:
        print(f"appended to {append(row, options.write)}")


def recipes(*arguments: str) -> None:
    """Run the command line in a process of its own, as a user would."""
    subprocess.run([sys.executable, "-m", "lightning_recipes.recipes.cli", *arguments], check=True)


def without_places(arguments: str) -> str:
    """The arguments with FOLDER for each absolute path."""
    return " ".join("FOLDER" if word.startswith("/") else word for word in arguments.split())


if __name__ == "__main__":
    main()
