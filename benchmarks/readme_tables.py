"""Write the tables of the README and of the pages in `docs/` from the rows in `results/`.

python benchmarks/readme_tables.py          # rewrites README.md and docs/*.md
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
    """Test accuracy of each measured recipe as it is shipped; variants stand on the pages of their techniques."""
    body = [
        [
            f"`{row['recipe']}`",
            accuracy(row),
            *(row["seeds"], row["epochs"], f"{int(row['samples']):,}", f"{float(row['cpu_s']):,.0f}"),
            *(row["hardware"], row["commit"]),
        ]
        for path in sorted((ROOT / "results").glob("*.csv"), reverse=True)
        for row in rows(path.stem)
        if (ROOT / "configs" / path.stem).is_dir() and not re.search(r"--(trainer\.callbacks|model)\.", row["command"])
    ]
    header = ["recipe", "test accuracy", "seeds", "epochs", "samples", "CPU seconds", "hardware", "commit"]
    return table(header, body)


def pruning() -> str:
    """Accuracy and cost of ways to train on fewer samples, beside all samples for as many epochs."""
    measured = rows("data_pruning")
    full = max(measured, key=lambda row: int(row["samples"]))

    def saved(row: dict[str, str], what: str) -> float:
        return 1 - float(row[what]) / float(full[what])

    body = []
    for row in sorted(measured, key=lambda row: -int(row["samples"])):
        difference = 100 * (float(row["test_accuracy_mean"]) - float(full["test_accuracy_mean"]))
        options = re.findall(r"callbacks\.(\w+ \S+)", row["command"])
        name = row["recipe"].split()[-1] if " " in row["recipe"] else "all samples"
        body.append(
            [
                ", ".join([name, *options]),
                row["epochs"],
                f"{int(row['samples']):,}",
                *((f"{saved(row, 'samples'):.1%}", f"{saved(row, 'cpu_s'):.1%}") if row is not full else ("", "")),
                accuracy(row),
                f"{difference:+.2f}" if row is not full else "",
                row["commit"],
            ]
        )
    header = ["training", "epochs", "samples", "saved", "CPU s saved", "test accuracy", "points to all", "commit"]
    return table(header, body)


def distillation() -> str:
    """Accuracy of one student by several losses, beside the student alone."""
    measured = rows("distillation")
    alone = next(row for row in measured if "--model.objective" not in row["command"])
    body = [
        [
            loss_of(row),
            accuracy(row),
            f"{100 * (float(row['test_accuracy_mean']) - float(alone['test_accuracy_mean'])):+.2f}",
            f"{float(row['best_val_accuracy_mean']):.4f}",
            row["seeds"],
            row["commit"],
        ]
        for row in sorted(measured, key=lambda row: float(row["test_accuracy_mean"]))
    ]
    header = ["loss and its options", "test accuracy", "points to alone", "validation accuracy", "seeds", "commit"]
    return table(header, body)


def on_digits(recipes: str) -> str:
    """Accuracy of recipes on the digits, with the options that they were given."""
    body = [
        [
            " ".join([row["recipe"], *re.findall(r"--model\.\S+ \S+", row["command"])]),
            accuracy(row),
            row["seeds"],
            row["commit"],
        ]
        for row in rows("digits")
        if re.search(recipes, f"{row['recipe']} {row['command']}")
    ]
    return table(["recipe", "test accuracy", "seeds", "commit"], body)


def distillation_choice() -> str:
    """Validation accuracy by which options of each loss were chosen."""
    body = [
        [loss_of(row), f"{float(row['best_val_accuracy_mean']):.4f}"]
        for row in sorted(rows("distillation_choice"), key=loss_of)
    ]
    return table(["loss and its options", "validation accuracy, one seed"], body)


def loss_of(row: dict[str, str]) -> str:
    """The loss of a row, with what was given to it."""
    given = dict(re.findall(r"--model\.objective\.(\S+) (\S+)", row["command"]))
    if "loss" not in given:
        return "cross-entropy, the student alone"
    options = [
        f"{name.removeprefix('loss.')} {value}"
        for name, value in given.items()
        if name not in ("loss", "teacher", "cache")
    ]
    return ", ".join([given["loss"], *options])


def distillation_cost() -> str:
    """What a teacher and the losses add to a step: the last row of each kind."""
    last = {row["what"]: row for row in rows("distillation_step")}
    whole = next(row for row in last.values() if row["what"].startswith("Distillation"))
    shares = [f"{row['what'].split()[0]} {float(row['ratio']):.2%}" for row in last.values() if row is not whole]
    return (
        f"{whole['what']}: {whole['ratio']} ({whole['ratio_min']} to {whole['ratio_max']}) x the CPU time of"
        f" {whole['beside']}, {float(whole['kept_bytes_ratio']):.3f} x the memory kept for the backward pass. Beyond"
        f" cross-entropy a loss takes, of {last['KD beyond cross-entropy']['beside']}: {', '.join(shares)}"
        f" (`{whole['command']}`, commit {whole['commit']})."
    )


def robust(data: str) -> str:
    """Accuracy of recipes under AutoAttack."""
    body = [
        [
            " ".join(
                [
                    row["recipe"].removeprefix(f"{data}/"),
                    *re.findall(r"--model\.objective\.(temp\S+ \S+)", row["command"]),
                ]
            ),
            f"{float(row['autoattack_accuracy_mean']):.4f} ± {float(row['autoattack_accuracy_std']):.4f}",
            *(f"{float(row[f'{name}_mean']):.4f}" for name in ("pgd20_accuracy", "fgsm_accuracy", "clean_accuracy")),
            f"{float(row['masking_signs_mean']):g}",
            *(row["seeds"], f"{float(row['cpu_s']):,.0f}", row["commit"]),
        ]
        for row in sorted(rows("robustness"), key=lambda row: float(row["autoattack_accuracy_mean"]))
        if row["recipe"].startswith(f"{data}/")
    ]
    header = ["recipe", "AutoAttack", "PGD-20", "FGSM", "natural", "masking signs", "seeds", "CPU s", "commit"]
    return table(header, body)


def adversarial_cost() -> str:
    """What a step of PGD training costs: the last row beside each other side."""
    last = {row["beside"]: row for row in rows("adversarial_step")}.values()
    sides = [
        f"{row['ratio']} ({row['ratio_min']} to {row['ratio_max']}) x"
        f" {'the same passes written bare' if row['beside'] == 'bare' else 'one with ' + row['beside']}"
        for row in last
    ]
    row = next(iter(last))
    return (
        f"CPU time of a step with PGD-10, `{row['network']}`, one thread: {', '.join(sides)} (`{row['command']}`,"
        f" commit {row['commit']})."
    )


def keep_hardest() -> str:
    """Accuracy on the digits of static pruning by scores, and of random subsets of as many samples."""
    body = [
        [
            row["recipe"].removeprefix("digits/"),
            "by Forgetting" if "forgetting" in row["command"] else "by EL2N" if "keep" in row["recipe"] else "",
            f"{int(row['samples']):,}",
            accuracy(row),
            row["commit"],
        ]
        for row in sorted(rows("digits"), key=lambda row: -int(row["samples"]))
        if row["recipe"] in ("digits/supervised", "digits/keep_hardest", "digits/random_subset")
        and "--model." not in row["command"]
    ]
    return table(["recipe", "scores", "samples", "test accuracy", "commit"], body)


def accuracy(row: dict[str, str]) -> str:
    """Mean and standard deviation."""
    return f"{float(row['test_accuracy_mean']):.4f} ± {float(row['test_accuracy_std']):.4f}"


def selection_cost() -> str:
    """Cost of choosing samples beside a permutation of as many, and of its part in a step."""
    body = [
        [
            f"{int(row['samples']):,}",
            f"{1000 * float(row['permutation_s']):.1f} ms",
            f"{1000 * float(row['decision_s']):.1f} ms, {row['decision_ratio']} x",
            f"{1000 * float(row['reading_s']):.1f} ms",
            row["bytes_per_sample"],
            row["commit"],
        ]
        for row in {row["samples"]: row for row in rows("data_selection")}.values()
    ]
    header = ["samples N", "one permutation", "decision and shuffle", "reading the indices", "bytes a sample", "commit"]
    step = rows("data_selection_step")[-1]
    share = f"{float(step['share_of_step']):.2%}"
    return (
        table(header, body)
        + f"\n\nEach step of `{step['network']}` at batch {step['batch']} ({step['step_ms']} CPU ms) has"
        f" {step['hooks_ms']} CPU ms of the callback's hooks around it: {share} (commit {step['commit']})."
    )


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


def local_memory() -> str:
    """Memory and time of local learning beside ordinary training: the last row of each kind."""
    last = {
        (row["network"], row["batch"], row["method"], row["hardware"]): row for row in rows("local_learning_memory")
    }
    body = [
        [
            f"`{row['network']}`, {row['batch']} x {row['image_size']} px",
            row["method"],
            row["modules"],
            f"{float(row['allocated_mib']):,.1f}",
            f"{float(row['allocated_ratio']):.2f}",
            f"{float(row['kept_ratio']):.2f}" if row["kept_ratio"] else "",
            f"{float(row['seconds']):.3f}",
            f"{float(row['time_ratio']):.2f}",
            f"{int(row['trained_parameters']) / 1e6:.2f} M",
            row["commit"],
        ]
        for row in last.values()
    ]
    header = ["network, batch", "training", "modules", "allocated MiB", "ratio", "kept, ratio", "s a step", "ratio"]
    return table([*header, "trained", "commit"], body)


def timm_coverage() -> str:
    """How many of timm's architectures can be cut."""
    row = rows("timm_coverage")[-1]
    return (
        f"Of {row['tried']} architectures of timm {row['timm']}, an even sample of {row['architectures']},"
        f" {row['works']} take a whole step of local learning in all their units, {row['refused']} are refused,"
        f" {row['fails']} fail and {row['not_measured']} could not be tried"
        f" (`{row['command']}`, commit {row['commit']})."
    )


def distilled_sets() -> str:
    """What sets of each size are worth; real images of the same size from the runs of the first method."""
    measured = rows("distilled_sets")
    first = {row["images_per_class"]: row["command"] for row in reversed(measured)}
    body = []
    for row in measured:
        distilled = row["set"].startswith("distilled")
        if not distilled and row["command"] != first[row["images_per_class"]]:
            continue
        options = re.findall(r"--model\.(?!images_per_class)(\S+ \S+)", row["command"])
        body.append(
            [
                row["images_per_class"],
                ", ".join([f"`{row['recipe']}`", *options, *row["set"].split(", ")[1:]]) if distilled else row["set"],
                accuracy(row),
                f"{row['sets']} x {row['networks']}",
                row["steps"] if distilled else "",
                row["commit"],
            ]
        )
    header = ["images per class", "set", "test accuracy", "sets x networks", "steps", "commit"]
    return table(header, body)


def dataset_distillation_cost() -> str:
    """A step of distillation beside the plain loop, and networks trained together beside one by one."""
    body = [
        [
            f"{row['images_per_class']}, {row['batch_real']}",
            f"{row['norm']}, {float(row['power']):g}",
            f"{row['ours_cpu_s']} and {row['reference_cpu_s']}",
            f"{row['times_faster']} ({row['times_faster_min']} to {row['times_faster_max']})",
            f"{row['ours_mib']} and {row['reference_mib']} MiB, {row['memory_ratio']} x",
            row["loss_difference"],
            row["commit"],
        ]
        for row in rows("dataset_distillation_step")
    ]
    header = ["images, real images of each class", "norm, power", "CPU s a step, here and there", "times faster"]
    together = [
        f"{row['case']} {row['times_faster']} x ({row['together_cpu_s']} and {row['one_by_one_cpu_s']} CPU s,"
        f" `{row['command']}`, commit {row['commit']})"
        for row in rows("small_set_training")
    ]
    return (
        table([*header, "memory of a step", "loss differs by", "commit"], body)
        + f"\n\nTen networks together beside one by one, times faster: {', '.join(together)}."
    )


def quickstart() -> str:
    """The end of a quick-start run."""
    text = (ROOT / "results" / "quickstart.txt").read_text()
    return f"```\n{text.strip()}\n```"


PARTS = {
    "accuracy": accuracies,
    "speed": speed,
    "quickstart": quickstart,
    "pruning": pruning,
    "keep hardest": keep_hardest,
    "distillation": distillation,
    "distillation choice": distillation_choice,
    "distillation cost": distillation_cost,
    "distillation digits": lambda: on_digits(r"^digits/(kd|ats|isats|dkd|dist|lskd) |width 8"),
    "deit_lt digits": lambda: on_digits("^digits/deit_lt"),
    "selection cost": selection_cost,
    "local memory": local_memory,
    "timm coverage": timm_coverage,
    "robustness digits": lambda: robust("digits"),
    "robustness": lambda: robust("cifar10"),
    "adversarial cost": adversarial_cost,
    "distilled sets": distilled_sets,
    "dataset distillation cost": dataset_distillation_cost,
}


def pages() -> list[Path]:
    """The files that may have tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def render(text: str) -> str:
    """A page with fresh tables."""
    for name, part in PARTS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda match, part=part: f"{match[1]}{part()}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    for page in pages():
        page.write_text(render(page.read_text()))
