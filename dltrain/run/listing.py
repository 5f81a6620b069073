"""What an outputs directory holds: runs and sweeps, read from their folders alone."""

import json
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltrain.run.folder import RunError, read_json
from dltrain.run.lock import FILE as LOCK
from dltrain.run.lock import held

RUN_FILES = {"config.yaml", "summary.json", "metrics.jsonl", "checkpoints"}
GROUPS = ("model", "optim", "data", "schedule")
NEEDED = ("model", "optim", "data", "trainer")
SPLITS = ("train", "val", "test")
RESULTS = tuple(f"{split}_{metric}" for split in ("val", "test", "train") for metric in ("accuracy", "loss"))
COLUMNS = (
    "name", "sweep", "status", *GROUPS, "epochs", "steps", *RESULTS, "best", "seconds", "images_per_second",
    "parameters", "when",
)  # fmt: skip
STATUSES = ("completed", "interrupted", "diverged", "failed", "pruned", "running", "unfinished", "waiting", "broken")
NO_END = {"unfinished", "interrupted", "waiting"}  # of which a sweep's ledger may know more


@dataclass
class Run:
    """A run, or a sweep's job (SWEEP/0): its columns and the keys of its summary; `reason` says why it is broken.

    val_accuracy and its kin are those of the best weights where there are such, as in a sweep's table.
    """

    name: str
    folder: Path
    values: dict[str, Any]
    reason: str = ""
    is_ours: bool = True
    modified: float = 0.0

    @property
    def status(self) -> str:
        """One of STATUSES."""
        return str(self.values["status"])

    def broke(self, reason: str) -> None:
        """It is broken."""
        self.reason = reason
        self.values["status"] = "broken"


@dataclass
class Sweep:
    """A sweep and its jobs, also those that have no folder yet."""

    name: str
    folder: Path
    jobs: list[Run] = field(default_factory=list)
    reason: str = ""
    modified: float = 0.0

    @property
    def completed(self) -> int:
        """How many of its jobs have completed."""
        return sum(job.status == "completed" for job in self.jobs)

    @property
    def status(self) -> str:
        """What its jobs come to."""
        statuses = {job.status for job in self.jobs}
        if self.reason or not statuses:
            return "broken"
        if statuses <= {"completed", "pruned"}:
            return "completed"
        if "running" in statuses:
            return "running"
        return "unfinished" if statuses & {"waiting", "unfinished", "interrupted"} else "failed"

    def as_run(self) -> Run:
        """A sweep to be chosen by its name, and by its status where it has no jobs."""
        status = None if self.jobs else self.status
        return Run(self.name, self.folder, {"name": self.name, "sweep": self.name, "status": status}, self.reason)


def read(outputs: Path) -> tuple[list[Run], list[Sweep]]:
    """The runs and the sweeps below an outputs directory, the newest last. Raises RunError where it cannot be read."""
    runs = [read_run(folder, folder.name) for folder in folders(outputs / "runs")]
    sweeps = [read_sweep(folder) for folder in folders(outputs / "sweeps")]
    return sorted(runs, key=lambda run: run.modified), sorted(sweeps, key=lambda sweep: sweep.modified)


def folders(parent: Path) -> Iterator[Path]:
    """The folders in a folder, without hidden ones. Raises RunError."""
    try:
        names = sorted(entry.name for entry in os.scandir(parent) if entry.is_dir() and entry.name[0] != ".")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{parent} cannot be read: {error.strerror}") from error
    yield from (parent / name for name in names)


def read_run(folder: Path, name: str, sweep: str | None = None) -> Run:
    """A run; whatever is wrong with it makes it a broken one."""
    run = Run(name, folder, {"name": name, "sweep": sweep})
    try:
        present = {path.name for path in os.scandir(folder)}
        last = next((file for file in ("summary.json", "metrics.jsonl") if file in present), "")
        run.modified = (folder / last).stat().st_mtime
        run.values["when"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.modified))
        run.is_ours = bool(present & RUN_FILES)
        run.values = {**_values(folder, present), **run.values}
    except OSError as error:
        run.broke(f"cannot be read: {error.strerror}")
    except RunError as error:
        run.broke(str(error))
    return run


def _values(folder: Path, present: set[str]) -> dict[str, Any]:
    """The choices of a run's configuration and the keys of its summary. Raises RunError where they are damaged."""
    if not present & RUN_FILES:
        raise RunError("none of a run's files is there")
    chosen = choices(folder / "config.yaml")
    summary = _summary(folder, present)
    keys = {key: value for key, value in flat(summary).items() if key not in (*SPLITS, "best")}
    results = {column: keys.get(column.replace("_", ".")) for column in RESULTS}
    if keys.get("best.value") is not None:
        results[f"{keys.get('best.split')}_{keys.get('best.metric')}"] = keys["best.value"]
    columns = {group: chosen[group] for group in GROUPS if group in chosen}
    return {**dict.fromkeys(COLUMNS), **chosen, **keys, **columns, **results, "best": keys.get("best.value")}


def _summary(folder: Path, present: set[str]) -> dict[str, Any]:
    summary = read_json(folder / "summary.json") if "summary.json" in present else {"status": "unfinished"}
    if summary is None or not isinstance(summary.get("status"), str):
        raise RunError("summary.json is damaged")
    if summary["status"] != "completed" and LOCK in present and held(folder):
        return {**summary, "status": "running"}
    return summary


def choices(path: Path) -> dict[str, str]:
    """The options that made a configuration, which its first line tells. Raises RunError where it is damaged."""
    try:
        head, _, rest = path.read_text().partition("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError("config.yaml is missing or cannot be read") from error
    chosen = dict(word.split("=", 1) for word in head.split() if "=" in word)
    if not head.startswith("# ") or any(f"\n{group}:\n" not in f"\n{rest}" for group in NEEDED):
        raise RunError("config.yaml is damaged")
    return chosen


def flat(content: dict[str, Any]) -> dict[str, Any]:
    """The values of a JSON object by dotted keys, one level deep; NaN and Inf are null."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        values |= {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, dict) else {key: value}
    return {key: None if value in (math.inf, -math.inf) or value != value else value for key, value in values.items()}


def read_sweep(folder: Path) -> Sweep:
    """A sweep; a job that is listed and has no folder yet is waiting."""
    sweep = Sweep(folder.name, folder)
    try:
        sweep.modified = folder.stat().st_mtime
        there = {int(job.name): job for job in folders(folder) if re.fullmatch(r"\d{1,9}", job.name, re.ASCII)}
        listed = _listed(folder / "sweep.jsonl")
    except OSError as error:
        sweep.reason = f"cannot be read: {error.strerror}"
        return sweep
    except RunError as error:
        sweep.reason = str(error)
        return sweep
    if listed is None:
        sweep.reason = "sweep.jsonl is missing or damaged"
    for number in sorted({*there, *(listed or ())}):
        name = f"{sweep.name}/{number}"
        job = read_run(there[number], name, sweep.name) if number in there else _waiting(folder, name)
        if job.status in NO_END and (listed or {}).get(number) in STATUSES:
            job.values["status"] = (listed or {})[number]
        sweep.jobs.append(job)
    sweep.modified = max([sweep.modified, *(job.modified for job in sweep.jobs)])
    return sweep


def _waiting(folder: Path, name: str) -> Run:
    return Run(name, folder / name, {"name": name, "sweep": folder.name, "status": "waiting"})


def _listed(path: Path) -> dict[int, str] | None:
    """How the jobs in a ledger ended, by number, "" where they did not; None where it is damaged.

    A last line that a kill cut short is left out.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.endswith(b"\n")]
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    known: dict[int, str] = {}
    for entry in entries:
        job = entry.get("job") if isinstance(entry, dict) else None
        if type(job) is int and job >= 0:
            known[job] = str(entry.get("status", ""))
    return known
