"""The page of a sweep, from the tables that it ends with and the records of its jobs."""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltrain.report import names
from dltrain.report.chart import Drawn, Line, chart
from dltrain.report.page import FILE, Parts, clipped, picture, spaced, write_page
from dltrain.run.folder import RunError
from dltrain.run.record import measures, read_rows

Row = dict[str, Any]
Groups = Mapping[str, Sequence[Row]]
COLOURED, MOST_OTHERS, MOST_SEEDS, MOST_JOBS, MANY, FEW_POINTS = 6, 40, 8, 500, 12, 60
ENDED = ("completed", "pruned", "diverged", "failed")
FILES = ("sweep.csv", "sweep.jsonl", "sweep.png")


@dataclass(frozen=True)
class Table:
    """A table of texts; `headings` gives each column its side."""

    title: str
    headings: dict[str, str]
    cells: list[list[str]]


def draw_page(
    folder: Path,
    *,
    column: str,
    running: bool,
    leaderboard: Table,
    remarks: Sequence[str],
    causes: Sequence[str],
    seeds: Table | None,
    jobs: Sequence[Row],
    results: Sequence[str],
    groups: Groups,
) -> Path:
    """Write report.html into a sweep's folder. `groups` are jobs' rows by setting, the best first; `column` ranks them.

    Raises WriteError.
    """
    parts = Parts()
    context = {
        "name": folder.resolve().name,
        "status": _status(folder, jobs, running),
        "best": _best(leaderboard, jobs, column),
        "counts": _counts(jobs, groups),
        "command": parts.make("the command", lambda: _command(folder)),
        "leaderboard": leaderboard,
        "remarks": remarks,
        "causes": [clipped(cause) for cause in causes],
        "seeds": seeds,
        "jobs": _jobs(folder, jobs, results),
        "jobs_left_out": max(0, len(jobs) - MOST_JOBS),
        "charts": parts.make("the curves", lambda: _curves(folder, groups)) or [],
        "others": max(0, len(groups) - COLOURED),
        "picture": picture(folder, "sweep"),
        "files": [name for name in FILES if (folder / name).is_file()],
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "notes": parts.notes,
    }
    return write_page(folder, "sweep.html.j2", **context)


def _status(folder: Path, jobs: Sequence[Row], running: bool) -> dict[str, str]:
    ended = sum(row["status"] in ENDED for row in jobs)
    good = sum(row["status"] in ("completed", "pruned") for row in jobs)
    so_far = f"{ended} of {len(jobs)} jobs have ended"
    name = shlex.quote(folder.resolve().name)
    if ended < len(jobs):
        if running:
            return {
                "word": "running",
                "tone": "busy",
                "told": f"{so_far}. To draw this page anew: dltrain report {name}",
            }
        return {"word": "unfinished", "tone": "warn", "told": f"{so_far}. To go on: dltrain resume {name}"}
    if good < len(jobs):
        return {"word": "ended", "tone": "bad", "told": f"{len(jobs) - good} of {len(jobs)} jobs did not complete."}
    return {"word": "completed", "tone": "good", "told": f"All {len(jobs)} jobs ran to their end."}


def _best(leaderboard: Table, jobs: Sequence[Row], column: str) -> dict[str, str] | None:
    """The first line of the leaderboard, where something was ranked."""
    heading = spaced(column)
    if not column or not leaderboard.cells or heading not in leaderboard.headings:
        return None
    first = dict(zip(leaderboard.headings, leaderboard.cells[0], strict=True))
    return {"setting": first["setting"], "label": heading, "value": first[heading]}


def _counts(jobs: Sequence[Row], groups: Groups) -> dict[str, int]:
    completed = sum(row["status"] == "completed" for row in jobs)
    seeds = {row["settings"].get("seed") for row in jobs}
    return {"jobs": len(jobs), "completed": completed, "settings": len(groups), "seeds": len(seeds)}


def _command(folder: Path) -> str | None:
    """The words that the ledger begins with."""
    path = folder / "sweep.jsonl"
    if not path.is_file():
        return None
    with path.open() as file:
        command = json.loads(file.readline())["command"]
    flags = [part for each in command.get("config_dirs") or [] for part in ("--config-dir", str(each))]
    return shlex.join(["dltrain", "-m", *flags, *(str(w) for w in command["words"] if not str(w).startswith("name="))])


def _jobs(folder: Path, jobs: Sequence[Row], results: Sequence[str]) -> dict[str, Any]:
    """A line a job, with the page of its own where there is one."""
    keys = list(dict.fromkeys(key for row in jobs for key in row["settings"]))
    lines = [
        {
            "job": row["job"],
            "page": f"{row['job']}/{FILE}" if (folder / str(row["job"]) / FILE).is_file() else None,
            "settings": [clipped(str(row["settings"].get(key, "default"))) for key in keys],
            "status": row["status"],
            "results": [(name, row[name]) for name in results],
            "seconds": row["seconds"],
        }
        for row in jobs[:MOST_JOBS]
    ]
    return {"keys": keys, "results": results, "lines": lines}


def _curves(folder: Path, groups: Groups) -> list[Drawn]:
    """The records of all jobs over one another: the first settings in colour, some of the others grey."""
    labels = names.labels(
        [{k: v for k, v in rows[0]["settings"].items() if k != "seed"} for rows in groups.values()][:COLOURED]
    )
    lines: list[tuple[str, str, list[list[Row]]]] = []
    for place, rows in enumerate(groups.values()):
        if place >= COLOURED + MOST_OTHERS:
            break
        coloured = place < COLOURED
        records = [_record(folder / str(row["job"])) for row in rows[: MOST_SEEDS if coloured else 1]]
        lines.append(
            (labels[place].replace("\n", " ") if coloured else "", f"c{place}" if coloured else "grey", records)
        )
    every = [row for _, _, records in lines for record in records for row in record]
    split = "val" if any(row["split"] == "val" for row in every) else "train"
    shown = dict.fromkeys(name for row in every if row["split"] == split for name in measures(row) if name[0] != "x")
    charts = []
    for name in list(shown)[:4]:
        drawn = [line for each in lines for line in _lines(*each, name=name, split=split)]
        title = f"{'validation' if split == 'val' else 'training'} {spaced(name)}"
        charts.append(chart(title, drawn, most=FEW_POINTS if len(drawn) > MANY else 2 * FEW_POINTS))
    return [drawn for drawn in charts if drawn]


def _lines(label: str, look: str, records: Sequence[Sequence[Row]], *, name: str, split: str) -> list[Line]:
    """A line a run, of the ends of epochs where there are two."""
    found: list[Line] = []
    for record in records:
        mine = [row for row in record if row["split"] == split and row.get(name) is not None]
        ends = [row for row in mine if float(row["epoch"]).is_integer()]
        points = [(float(row["epoch"]), float(row[name])) for row in (ends if len(ends) > 1 else mine)]
        if points:
            found.append(Line(label, look, points, told=bool(label) and not found, marked=bool(label)))
    return found


def _record(folder: Path) -> list[Row]:
    """The rows of a job; none of a damaged record, which its own page tells of."""
    try:
        return read_rows(folder)
    except RunError:
        return []
