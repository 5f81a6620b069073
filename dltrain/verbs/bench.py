"""Measure this machine, and dltrain beside other training loops: `dltrain bench [--quick] [overrides]`."""

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

QUICK, ALL = ("mlp", "lenet", "resnet18"), ("mlp", "lenet", "resnet18", "densenet")
# Batches of an epoch and of its evaluation, by model: some seconds on two CPU cores.
EPOCHS = {"mlp": (40, 8), "lenet": (6, 2), "resnet18": (2, 1), "densenet": (2, 1)}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """How long, and where results go."""
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Measure model after model, print a table each, and write a file of all results where a folder is named."""
    chosen = [word.partition("=")[2] for word in words if word.startswith("model=")]
    names = chosen[-1].split(",") if chosen else QUICK if flags.quick else ALL
    overrides = [word for word in words if not word.startswith("model=")]

    from dltrain.bench.machine import write_results
    from dltrain.bench.report import LEGEND, machine_lines, result_table
    from dltrain.run.console import Console

    console, start = Console(), time.perf_counter()
    record: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "machine": None, "results": []}
    for name in names:
        console.say(f"measuring {name} ...")
        known = record["machine"]
        record["machine"], results = _measure(name, overrides, flags, machine=known)
        record["results"] += results
        if known is None:
            console.say("\n".join(machine_lines(record["machine"])))
        console.say(result_table(record, name))
    console.say(f"\n{LEGEND}\n{time.perf_counter() - start:.0f} s in all")
    if flags.output:
        console.say(f"results  {write_results(flags.output, record['machine']['device'], record)}")
    return 0


def contestants(precision: str) -> list[Any]:
    """We first, then the course loop, in our precision too, and the trainers that are installed."""
    from dltrain.bench.contestants import Course, CourseBf16, Ours
    from dltrain.bench.peers import installed

    return [Ours, Course, *([CourseBf16] if precision == "bf16" else []), *installed()]


def _measure(
    name: str, overrides: list[str], flags: argparse.Namespace, *, machine: dict[str, Any] | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The machine, measured where it is not known yet, and the results of one model."""
    from dltrain.bench import machine as machines
    from dltrain.bench.measure import measure
    from dltrain.bench.task import prepare

    seconds, scale = (1.0, 1) if flags.quick else (4.0, 3)
    batches, evaluated = (scale * count for count in EPOCHS.get(name, (2, 1)))
    with tempfile.TemporaryDirectory() as folder:
        task = prepare([f"model={name}", *overrides], batches=batches, evaluated=evaluated, folder=Path(folder))
        found = machine or machines.machine(task.device, again=True)
        how = {"repeats": flags.repeats, "seconds": seconds, "command": name == "lenet"}
        results = list(measure(task, contestants(task.run.engine.precision.name), **how))
        settings = {"batch_size": task.batch_size, "image_size": task.image_size, "overrides": task.overrides}
        return found, [{**settings, "train_flops_per_image": task.flops, **result.as_dict()} for result in results]
