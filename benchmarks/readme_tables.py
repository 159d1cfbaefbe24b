"""Write the tables of the README and of the pages in `docs/` from the rows in `results/` and the heads of the recipes.

python benchmarks/readme_tables.py          # rewrites README.md and the pages below docs/
"""

from __future__ import annotations

import re
from pathlib import Path

import tables_of_accuracy as accuracy
import tables_of_cost as cost
from tables import ROOT
from tables_of_techniques import techniques


def quickstart() -> str:
    """The end of a quick-start run."""
    text = (ROOT / "results" / "quickstart.txt").read_text()
    return f"```\n{text.strip()}\n```"


PARTS = {
    "accuracy": accuracy.accuracies,
    "speed": cost.speed,
    "quickstart": quickstart,
    "techniques": techniques,
    "pruning": accuracy.pruning,
    "keep hardest": accuracy.keep_hardest,
    "distillation": accuracy.distillation,
    "distillation choice": accuracy.distillation_choice,
    "distillation cost": cost.distillation_cost,
    "distillation digits": lambda: accuracy.on_digits(
        r"^digits/(kd|ats|isats|dkd|dist|lskd|rkd|sp|reviewkd|crd) |width 8"
    ),
    "deit_lt digits": lambda: accuracy.on_digits("^digits/deit_lt"),
    "selection cost": cost.selection_cost,
    "local learning": accuracy.local_learning,
    "local learning digits": lambda: accuracy.on_digits(
        "^digits/(auglocal|dgl|man|infopro|predsim|feature_reconstruction) "
    ),
    "local memory": cost.local_memory,
    "timm coverage": cost.timm_coverage,
    "robustness digits": lambda: accuracy.robust("digits"),
    "robustness": lambda: accuracy.robust("cifar10"),
    "adversarial cost": cost.adversarial_cost,
    "distilled sets digits": lambda: accuracy.distilled_sets("digits"),
    "distilled sets": lambda: accuracy.distilled_sets("cifar10"),
    "dataset distillation cost": cost.dataset_distillation_cost,
}


def pages() -> list[Path]:
    """The files that may have tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def render(text: str) -> str:
    """A page with fresh tables."""
    for name, part in PARTS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda match, part=part: f"{match[1]}{part()}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    for page in pages():
        page.write_text(render(page.read_text()))
