"""Tables of accuracies for the pages, from the rows in `results/`."""

from __future__ import annotations

import re

from tables import ROOT, accuracy, rows, table


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
    """Accuracy and cost of ways to train on fewer samples, against all samples for as many epochs."""
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
    """Accuracy of one student by several losses, against the student alone."""
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


def distilled_sets(data: str) -> str:
    """What sets of each size are worth; real images of the same size from the runs of the first method."""
    measured = [row for row in rows("distilled_sets") if row["recipe"].startswith(f"{data}/")]
    measured.sort(key=lambda row: int(row["images_per_class"]))
    first = {row["images_per_class"]: row["command"] for row in reversed(measured)}
    body = []
    for row in measured:
        distilled = row["set"].startswith("distilled")
        if not distilled and row["command"] != first[row["images_per_class"]]:
            continue
        options = re.findall(r"--model\.matching\.(\S+ \S+)", row["command"])
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


def local_learning() -> str:
    """Accuracy of one network trained as a whole and in modules of its own losses."""
    body = [
        [
            "ordinary" if re.search(r"num_modules 1( |$)", row["command"]) else f"`{row['recipe']}`",
            accuracy(row),
            f"{float(row['best_val_accuracy_mean']):.4f}",
            f"{float(row['cpu_s']):,.0f}",
            f"{int(row['peak_memory_mib']):,}",
            row["seeds"],
            row["commit"],
        ]
        for row in sorted(rows("local_learning"), key=lambda row: -float(row["test_accuracy_mean"]))
    ]
    header = [
        "training",
        "test accuracy",
        "validation accuracy",
        "CPU s",
        "peak of the process, MiB",
        "seeds",
        "commit",
    ]
    return table(header, body)
