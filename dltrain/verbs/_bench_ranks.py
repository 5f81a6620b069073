"""`dltrain bench scaling`: steps on one rank and on several, in turns, and what ranks say to each other."""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dltrain.config.compose import Composition, compose
from dltrain.config.errors import ConfigError, UsageError
from dltrain.run.folder import read_json
from dltrain.verbs._launch import run_ranks

SECONDS = {True: 1.0, False: 4.0}  # of steps in each way, where quick or not


def bench_scaling(words: list[str], flags: argparse.Namespace, *, names: Sequence[str]) -> int:
    """Measure model after model, each number of ranks in every round, print tables, and write a file of all results.

    `device.count` is the most ranks, `device.threads` those of all ranks together.
    """
    from dltrain.bench.machine import write_results
    from dltrain.bench.ranks_report import LEGEND, head, links_table, model_table, verdict
    from dltrain.run.console import Console

    if flags.again or flags.minutes:
        raise UsageError("dltrain bench scaling takes --quick, --repeats and --output")
    console, start = Console(), time.perf_counter()
    own = [word for word in words if not word.startswith(("device.count=", "device.threads="))]
    record = _surroundings(compose(words).config.device)
    console.say("\n".join(head(record)))
    for name in names:
        console.say(f"measuring {name} ...")
        if code := _measure(name, own, flags, record):
            return code  # the ranks have said why
        console.say(model_table(record, name))
        console.say(verdict(record, name))
        if flags.output:  # after every model: what comes next may be killed
            path = write_results(flags.output, f"ranks-{record['device']}", record)
            console.say(f"results  {path}")
    if record["all_reduce"]:
        console.say(links_table(record))
    console.say(f"\n{LEGEND}\n{time.perf_counter() - start:.0f} s in all")
    return 0


def _surroundings(node: Any) -> dict[str, Any]:
    """A record with the machine, and without results."""
    import torch

    from dltrain.bench.machine import packages
    from dltrain.engine import select
    from dltrain.engine.device import describe

    device = select(node.name)
    threads = node.threads or torch.get_num_threads()
    torch.set_num_threads(threads)  # which the description of a processor tells
    counts = rank_counts(_places(device.type, threads), node.count)
    if device.type == "cpu" and counts[-1] > threads:
        raise ConfigError(f"device.threads={threads}: {counts[-1]} ranks need a thread each, of those together")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": describe(device),
        "kind": device.type,
        "threads": threads,
        "cores": os.cpu_count(),
        "packages": packages(),
        "counts": counts,
        "results": [],
        "all_reduce": {},
    }


def _places(kind: str, threads: int) -> int:
    """How many ranks have a device, or a thread, of their own."""
    import torch

    return torch.cuda.device_count() if kind == "cuda" else threads if kind == "cpu" else 1


def rank_counts(places: int, asked: int) -> list[int]:
    """Powers of two up to as many as there are places for, or those below the number that is asked for, and that."""
    if asked == 1:
        return [2**power for power in range(places.bit_length())]
    return [*(2**power for power in range((asked - 1).bit_length())), asked]


def _measure(name: str, words: list[str], flags: argparse.Namespace, record: dict[str, Any]) -> int:
    """Add to a record the results of a model: every number of ranks in each round, which begins with another one.

    Returns the exit code of ranks that failed, or 0.
    """
    from dltrain.bench.on_ranks import SIZES

    trained = {count: _compositions(name, words, count, record) for count in record["counts"]}
    results: dict[tuple[int, str], dict[str, Any]] = {}
    counts, first = list(trained), not record["results"]
    for number in range(flags.repeats):
        turn = number % len(counts)
        for count in [*counts[turn:], *counts[:turn]]:
            sizes = SIZES if first and count > 1 else []
            code, found = _run(trained[count], seconds=SECONDS[flags.quick], sizes=sizes)
            if code:
                return code
            for (growth, _), steps in zip(trained[count], found["steps"], strict=True):
                _add(results.setdefault((count, growth), {"model": name, "ranks": count, "scaling": growth}), steps)
            for size, seconds in found["all_reduce"].items():
                record["all_reduce"].setdefault(str(count), {}).setdefault(size, []).append(seconds)
    record["results"] += [results[key] for key in sorted(results)]
    return 0


def _compositions(name: str, words: list[str], count: int, record: dict[str, Any]) -> list[tuple[str, Composition]]:
    """The same batch for all ranks together, and the same for each; one rank has them both."""
    from dltrain.bench.task import COMMON, PREPARED

    threads = max(1, record["threads"] // count)
    limits = [f"trainer.limit_{split}_batches={PREPARED}" for split in ("train", "val", "test")]
    ranks = [f"device.count={count}", f"device.threads={threads}"]
    base = [*COMMON, *words, f"model={name}", *limits, *ranks]
    strong = compose(base)
    if count == 1:
        return [("strong", strong)]
    size = strong.config.data.batch_size * count
    return [("strong", strong), ("weak", compose([*base, f"data.batch_size={size}"]))]


def _run(trained: list[tuple[str, Composition]], *, seconds: float, sizes: list[int]) -> tuple[int, dict[str, Any]]:
    """Start the ranks; returns their exit code, and what the first of them wrote."""
    from dltrain.bench.on_ranks import measure

    (_, composition), *others = trained
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        more: dict[str, Any] = {
            "others": [each for _, each in others],
            "seconds": seconds,
            "sizes": sizes,
            "path": path,
        }
        return run_ranks(composition, measure, **more), read_json(path) or {}


def _add(result: dict[str, Any], steps: dict[str, Any]) -> None:
    """Add what a round has found to a result, a number a round; what is no matter of time is the same in each."""
    raw = {key: steps.pop(key) for key in ("loss", "steps", "seconds")}
    result.update(steps)
    result.setdefault("losses", []).append(raw["loss"])
    result.setdefault("steps", []).append(raw["steps"])
    for way, seconds in raw["seconds"].items():
        result.setdefault("seconds", {}).setdefault(way, []).append(seconds)
