"""Tables of time and memory for the pages, from the rows in `results/`."""

from __future__ import annotations

from tables import rows, table


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


def adversarial_cost() -> str:
    """Cost of a step of PGD training: the last row against each other side."""
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


def selection_cost() -> str:
    """Cost of choosing samples against a permutation of as many, and its share of a step."""
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
    """Cost of each part against the code it replaces: the last row of each kind."""
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
    return table(["part", "here", "compared with", "ratio", "command"], body)


def local_memory() -> str:
    """Memory and time of local learning against ordinary training: the last row of each kind."""
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
            f"{float(row['flops_ratio']):.2f}" if row["flops_ratio"] else "",
            f"{int(row['trained_parameters']) / 1e6:.2f} M",
            row["commit"],
        ]
        for row in last.values()
    ]
    header = ["network, batch", "training", "modules", "allocated MiB", "ratio", "kept, ratio", "s a step", "ratio"]
    return table([*header, "operations, ratio", "trained", "commit"], body)


def timm_coverage() -> str:
    """Tell how many of timm's architectures can be cut, by the kind of head: the last row of each."""
    last = {row["head"]: row for row in rows("timm_coverage")}
    row = list(last.values())[-1]
    body = [[f"`{head}`", *(each[key] for key in _OUTCOMES), each["commit"]] for head, each in last.items()]
    return (
        f"A whole step of local learning in all units of {row['tried']} architectures, an even sample of the"
        f" {row['architectures']} in timm {row['timm']} (`{row['command']}`):\n\n"
        + table(["head", *(key.replace("_", " ") for key in _OUTCOMES), "commit"], body)
    )


_OUTCOMES = ("works", "refused", "fails", "not_measured")


def dataset_distillation_cost() -> str:
    """A step of distillation against the plain loop, and networks trained together instead of one by one."""
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
        + f"\n\nTen networks trained together instead of one by one, times faster: {', '.join(together)}."
    )
