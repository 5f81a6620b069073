"""What a sweep came to: sweep.csv, and a ranking by validation."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
RESULTS = ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_accuracy", "train_loss")
COLUMNS = ("rank", "job", "setting", "status", *RESULTS, "parameters", "images_per_second", "seconds", "cause")


def result(folder: Path, *, job: int, setting: str, cause: str) -> Row:
    """One job's line, from its run folder; a job without a summary has failed."""
    path = folder / "summary.json"
    summary: Row = json.loads(path.read_text()) if path.is_file() else {"status": "failed"}
    row: Row = {"job": job, "setting": setting, "status": summary["status"], "cause": summary.get("cause") or cause}
    for column in RESULTS:
        split, _, metric = column.partition("_")
        row[column] = (summary.get(split) or {}).get(metric)
    best = summary.get("best")
    if best:
        row[f"{best['split']}_{best['metric']}"] = best["value"]
    return {**row, **{key: summary.get(key) for key in ("parameters", "images_per_second", "seconds")}}


def rank(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """The rows, the best first, and the number they are ranked by: of validation where every completed job has one."""
    completed = [row for row in rows if row["status"] == "completed"]
    column = next((name for name in RESULTS if completed and all(row[name] is not None for row in completed)), "")
    sign = 1 if column.endswith("loss") else -1

    def order(row: Row) -> tuple[bool, float]:
        value = row.get(column) if row["status"] == "completed" else None
        return value is None, 0.0 if value is None else sign * value

    ranked = sorted(rows, key=order)
    places = [place if row["status"] == "completed" else None for place, row in enumerate(ranked, 1)]
    return [{"rank": place, **row} for place, row in zip(places, ranked, strict=True)], column


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write the ranked rows."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({column: row.get(column) for column in COLUMNS} for row in rows)
