"""Write the README's tables from the rows in `results/`.

python benchmarks/readme_tables.py          # rewrites README.md
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def rows(name: str) -> list[dict[str, str]]:
    """The rows of ``results/<name>.csv``."""
    path = ROOT / "results" / f"{name}.csv"
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(header: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def accuracies() -> str:
    """Test accuracy of each measured recipe."""
    body = [
        [
            f"`{row['recipe']}`",
            f"{float(row['test_accuracy_mean']):.4f} ± {float(row['test_accuracy_std']):.4f}",
            *(row["seeds"], row["epochs"], f"{int(row['samples']):,}", f"{float(row['cpu_s']):,.0f}"),
            *(row["hardware"], row["commit"]),
        ]
        for path in sorted((ROOT / "results").glob("*.csv"), reverse=True)
        for row in rows(path.stem)
        if "test_accuracy_mean" in row
    ]
    header = ["recipe", "test accuracy", "seeds", "epochs", "samples", "CPU seconds", "hardware", "commit"]
    return table(header, body)


def speed() -> str:
    """What the parts cost beside what they replace: the last row of each kind."""
    loader = {row["command"]: row for row in rows("data_pipeline")}
    steps = {row["network"]: row for row in rows("step_overhead")}
    body = [
        [
            f"training loader, {int(row['images']):,} images",
            f"{int(row['ours_images_per_s']):,} images/s, {row['ours_cpu_s']} CPU s",
            f"torchvision, 2 workers: {int(row['torchvision_images_per_s']):,} images/s,"
            f" {row['torchvision_cpu_s']} CPU s",
            f"{row['ratio']} x faster",
            f"`{command}`",
        ]
        for command, row in loader.items()
    ] + [
        [
            f"`recipes fit`, {network}",
            f"{float(row['recipes_cpu_ms_per_step']):.1f} CPU ms a step",
            f"bare PyTorch loop: {float(row['bare_cpu_ms_per_step']):.1f} CPU ms a step",
            f"{row['ratio']} ({row['ratio_min']} to {row['ratio_max']}) x the time",
            f"`{row['command']}`",
        ]
        for network, row in steps.items()
    ]
    return table(["what", "here", "beside", "ratio", "command"], body)


def quickstart() -> str:
    """The end of a quick-start run."""
    text = (ROOT / "results" / "quickstart.txt").read_text()
    return f"```\n{text.strip()}\n```"


def render(text: str) -> str:
    """The README with fresh tables."""
    parts = {"accuracy": accuracies(), "speed": speed(), "quickstart": quickstart()}
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text()))
