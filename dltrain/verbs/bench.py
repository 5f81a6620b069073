"""Measure this machine, and dltrain beside other training loops; `bench scaling`: over ranks."""

import argparse
import difflib
import math
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dltrain.config.errors import ConfigError, UsageError
from dltrain.verbs._composing import check_form

QUICK, ALL = ("mlp", "lenet", "resnet18"), ("mlp", "lenet", "resnet18", "densenet")
QUICK_MINUTES = 8.0  # in which the last round has ended, but for a machine that is slower than any seen
# Batches that an epoch on a CPU trains on and evaluates, 6 to 1 as in the whole set, by model.
EPOCHS = {"mlp": (240, 40), "lenet": (48, 8)}
QUICK_EPOCHS = {"mlp": (60, 10), "lenet": (18, 3)}
OTHERS, QUICK_OTHERS, QUICK_CUDA, WHOLE = (24, 4), (6, 1), (120, 20), (None, None)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """How long, and where results go."""
    parser.add_argument("--quick", action="store_true", help="fewer contestants and repeats")
    parser.add_argument("--again", action="store_true", help="measure anew what is cached")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement")
    parser.add_argument("--minutes", type=float, help="to take at most")
    parser.add_argument("--output", type=Path, help="folder for the results")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Measure model after model, print a table each, and write a file of all results where a folder is named.

    Exit 1 where we failed; others may. With the first word `scaling` all of it is about ranks.
    """
    over_ranks = words[:1] == ["scaling"]
    words = words[over_ranks:]
    if difflib.get_close_matches("".join(words[:1]), ["scaling"]):
        raise UsageError(f"dltrain bench {words[0]}: did you mean dltrain bench scaling?")
    check_form(words)
    if not over_ranks and (asked := next((word for word in words if word.startswith("device.count=")), None)):
        raise ConfigError(f"{asked}: dltrain bench measures one device; dltrain bench scaling takes several")
    chosen = [word.partition("=")[2] for word in words if word.startswith("model=")]
    names = chosen[-1].split(",") if chosen else QUICK if flags.quick else ALL
    overrides = [word for word in words if not word.startswith("model=")]
    if over_ranks:
        from dltrain.verbs._bench_ranks import bench_scaling

        return bench_scaling(overrides, flags, names=names)
    return _bench_models(names, overrides, flags)


def contestants(precision: str, *, quick: bool) -> list[Any]:
    """Classes and precisions: we first, in float32 too, the course loop, and the trainers that are installed.

    A quick bench has those in our precision alone.
    """
    from dltrain.bench.contestants import Course, Ours
    from dltrain.bench.peers import installed

    peers = ["bf16", "fp32"] if precision == "bf16" else ["fp32"]
    return [
        *((Ours, each) for each in dict.fromkeys([precision, "fp32"])),
        *((Course, each) for each in ("fp32", "bf16")),
        *((peer, each) for peer in installed() for each in peers[: 1 if quick else None]),
    ]


def epoch_batches(model: str, device: str, *, quick: bool) -> tuple[int | None, int | None]:
    """Batches that an epoch trains on and evaluates, None being all: as many as start effects do not rule."""
    if device == "cuda":
        return QUICK_CUDA if quick else WHOLE
    return QUICK_EPOCHS.get(model, QUICK_OTHERS) if quick else EPOCHS.get(model, OTHERS)


def _bench_models(names: Sequence[str], overrides: list[str], flags: argparse.Namespace) -> int:
    from dltrain.bench.machine import write_results
    from dltrain.bench.peers import absent
    from dltrain.bench.report import LEGEND, machine_lines, result_table
    from dltrain.run.console import Console

    console, start = Console(), time.perf_counter()
    usual = QUICK_MINUTES if flags.quick else math.inf
    minutes = usual if flags.minutes is None else flags.minutes
    record: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "machine": None, "results": []}
    for number, name in enumerate(names):
        console.say(f"measuring {name} ...")
        known, now = record["machine"], time.perf_counter()
        until = now + (start + 60 * minutes - now) / (len(names) - number)
        record["machine"], results = _measure(name, overrides, flags, machine=known, until=until)
        record["results"] += results
        if known is None:
            console.say("\n".join(machine_lines(record["machine"])))
        console.say(result_table(record, name))
        if flags.output:  # after every model: what comes next may be killed
            device = record["machine"]["device"]
            console.say(f"results  {write_results(flags.output, device, record, by_model=True)}")
    console.say("\n".join(["", LEGEND, *filter(None, [absent()]), f"{time.perf_counter() - start:.0f} s in all"]))
    return int(any(result["error"] for result in record["results"] if result["contestant"] == "dltrain"))


def _measure(
    name: str, overrides: list[str], flags: argparse.Namespace, *, machine: dict[str, Any] | None, until: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The machine, where it is not known yet, and the results of one model."""
    from dltrain.bench import machine as machines
    from dltrain.bench.apart import elsewhere
    from dltrain.bench.measure import measure
    from dltrain.bench.task import prepare
    from dltrain.config.compose import compose
    from dltrain.engine import select

    words = [f"model={name}", *overrides]
    device = select(compose(words).config.device.name)
    batches, evaluated = epoch_batches(name, device.type, quick=flags.quick)
    with tempfile.TemporaryDirectory() as folder:
        task = prepare(words, batches=batches, evaluated=evaluated, folder=Path(folder))
        found = machine or machines.machine(device, again=flags.again)
        how = {"repeats": flags.repeats, "seconds": 1.0 if flags.quick else 4.0, "until": until}
        kinds = contestants(task.precision, quick=flags.quick)
        with elsewhere(task) as apart:
            results = list(measure(task, kinds, command=name == "lenet", apart=apart, **how))
        settings = {"batch_size": task.batch_size, "image_size": task.image_size, "overrides": task.overrides}
        epoch = {"train": task.examples["train"], "evaluated": task.examples["test"]}
        return found, [{**settings, **task.costs, "epoch_images": epoch, **result.as_dict()} for result in results]
