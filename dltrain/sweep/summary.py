"""What a sweep came to: its runs grouped by what differs apart from the seed, ranked by validation, and sweep.csv."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from dltrain.run.folder import RunError, read_json, replacing
from dltrain.run.record import read_rows
from dltrain.sweep.statistics import LEVEL, Comparison, holm, paired

Row = dict[str, Any]
RESULTS = ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_accuracy", "train_loss")
RANKING = ("val_accuracy", "val_loss")  # never the test set: it would no longer be unseen
OTHERS = ("parameters", "images_per_second", "seconds")


def result(folder: Path, *, job: int, settings: Mapping[str, str], status: str | None = None, cause: str = "") -> Row:
    """One job's row, from its run folder; a job without a summary has failed.

    `settings` are the overrides that vary within the sweep; a `status` that is given, and its cause, go before what
    the summary says. Where there are best weights, what is said of their split is of their step, as `chosen_by` has it.
    """
    summary = read_json(folder / "summary.json") or {"status": "failed"}
    said = summary.get("cause") or ""
    row: Row = {"job": job, "settings": dict(settings), "setting": label(settings)}
    row |= {"status": status or summary["status"], "cause": (cause or said) if status else (said or cause)}
    for column in RESULTS:
        split, _, metric = column.partition("_")
        row[column] = (summary.get(split) or {}).get(metric)
    if best := summary.get("best"):
        row["chosen_by"] = f"{best['split']}_{best['metric']}"
        at_best = _at(folder, best)
        row |= {f"{best['split']}_{metric}": at_best.get(metric) for metric in ("accuracy", "loss")}
    return {**row, **{key: summary.get(key) for key in (*OTHERS, "ranks")}}


def _at(folder: Path, best: Mapping[str, Any]) -> Row:
    """The numbers of the best step; the best one alone where the record lacks it."""
    try:
        rows = read_rows(folder)
    except RunError:  # of a damaged record, which must not keep the others from being ranked
        rows = []
    found = [row for row in rows if (row["split"], row["step"]) == (best["split"], best["step"])]
    return {**(found[-1] if found else {}), best["metric"]: best["value"]}


def label(settings: Mapping[str, str]) -> str:
    """What a row is called: model=mlp seed=3."""
    return " ".join(f"{key}={value}" for key, value in settings.items()) or "all"


@dataclass(frozen=True)
class Group:
    """The jobs that differ in nothing but the seed; ranked where one of them has what the ranking is by."""

    setting: str
    rows: tuple[Row, ...]
    rank: int | None = None

    def values(self, column: str) -> dict[str, float]:
        """A result of each completed job, by seed."""
        completed = [row for row in self.rows if row["status"] == "completed" and row.get(column) is not None]
        return {row["settings"].get("seed", ""): row[column] for row in completed}


def grouped(rows: Sequence[Row]) -> list[Group]:
    """The rows by setting without the seed, in the order in which the settings come first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        setting = label({key: value for key, value in row["settings"].items() if key != "seed"})
        found.setdefault(setting, []).append(row)
    return [Group(setting, tuple(members)) for setting, members in found.items()]


def ranking(rows: Sequence[Row]) -> str:
    """The column to rank by: what the weights of all completed jobs were chosen by, else accuracy, else loss, of those
    that have been validated; "" with neither.
    """
    completed = [row for row in rows if row["status"] == "completed"]
    validated = [row for row in completed if any(row.get(column) is not None for column in RANKING)]
    if not validated:
        return ""
    chosen = dict.fromkeys(row.get("chosen_by") for row in validated)
    columns = [column for column in (*chosen, *RANKING) if column in RANKING] if len(chosen) == 1 else RANKING
    return next((column for column in columns if all(row.get(column) is not None for row in validated)), "")


def ranked(groups: Sequence[Group], column: str) -> list[Group]:
    """The groups, the best mean first and those without one last."""
    means = [fmean(values) if (values := group.values(column).values()) else None for group in groups]
    sign = 1 if column.endswith("loss") else -1
    order = sorted(range(len(groups)), key=lambda place: (means[place] is None, sign * (means[place] or 0.0)))
    return [replace(groups[place], rank=None if means[place] is None else rank) for rank, place in enumerate(order, 1)]


@dataclass(frozen=True)
class Verdict:
    """What the best group, minus another one on the seeds they share, came to; p is Holm's, over all such pairs."""

    comparison: Comparison
    p: float | None
    words: str


def against_the_best(groups: Sequence[Group], column: str) -> list[Verdict]:
    """The best of the ranked groups against each other ranked one, in their order."""
    first = [group for group in groups if group.rank is not None]
    comparisons = [_compare(first[0], other, column) for other in first[1:]]
    adjusted = iter(holm([each.p for each in comparisons if each.p is not None]))
    p_values = [None if each.p is None else next(adjusted) for each in comparisons]
    pairs = zip(comparisons, p_values, strict=True)
    return [Verdict(each, p, _words(each, p, less_is_better=column.endswith("loss"))) for each, p in pairs]


def _compare(first: Group, second: Group, column: str) -> Comparison:
    ours, theirs = first.values(column), second.values(column)
    shared = [seed for seed in ours if seed in theirs]
    return paired([ours[seed] for seed in shared], [theirs[seed] for seed in shared])


def _words(comparison: Comparison, p: float | None, *, less_is_better: bool) -> str:
    n, mean = comparison.n, comparison.mean
    if mean is None:
        return "no seed in common: no statement"
    if comparison.low is None or p is None:
        return f"n = {n}: no statement" if n < 3 else f"the differences do not vary at n = {n}: no test"
    if p >= LEVEL:
        return f"not distinguishable at n = {n}"
    return f"{'better' if (mean < 0) == less_is_better else 'worse'} than it at n = {n}"


def table_rows(groups: Sequence[Group]) -> list[Row]:
    """A row a job, group by group, with its group's rank where it completed; those that did not come last."""
    rows = [
        {"rank": group.rank if row["status"] == "completed" else None, **row} for group in groups for row in group.rows
    ]
    return sorted(rows, key=lambda row: row["status"] != "completed")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows, every key that varies in a column of its own, and so the ranks. Raises WriteError."""
    keys = dict.fromkeys(key for row in rows for key in row["settings"])
    ranks = ["ranks"] if len({row.get("ranks") for row in rows} - {None}) > 1 else []
    columns = ["rank", "job", *keys, "setting", "status", *RESULTS, *OTHERS, *ranks, "cause"]
    with replacing(path) as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row["settings"], **row} for row in rows)
