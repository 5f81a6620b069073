"""The record of a run as curves, and as a table of its epochs."""

import re
from collections.abc import Sequence
from typing import Any

from dltrain.report.chart import Drawn, Line, chart
from dltrain.report.page import spaced
from dltrain.run.record import measures

Row = dict[str, Any]
LABELS = {"train": "training", "val": "validation", "test": "test"}
COORDINATE = re.compile(r"x\d+")  # of a point on a landscape
MOST_CHARTS, MOST_EPOCHS = 8, 60


def curves(rows: Sequence[Row]) -> list[Drawn]:
    """A chart of every number that rows measure, then of the rate and the speed of training."""
    if any("x1" in row for row in rows):  # the mean of a path is no place on it
        rows = [row for row in rows if not (row["split"] == "train" and float(row["epoch"]).is_integer())]
    names = dict.fromkeys(name for row in rows for name in measures(row) if not COORDINATE.fullmatch(name))
    charts = [chart(spaced(name), _lines(name, rows)) for name in list(names)[: MOST_CHARTS - 2]]
    train = [row for row in rows if row["split"] == "train"]
    for title, name in (("learning rate", "lr"), ("examples a second", "images_per_second")):
        points = [(float(row["epoch"]), row.get(name)) for row in train]
        charts.append(chart(title, [Line(title, "train", points, told=False, marked=True)], from_zero=True))
    return [drawn for drawn in charts if drawn]


def _lines(name: str, rows: Sequence[Row]) -> list[Line]:
    """A line a split: pale between the epochs' ends, with a mark at each end."""
    found = []
    for split, label in LABELS.items():
        mine = [row for row in rows if row["split"] == split and name in row]
        ends, between = ([row for row in mine if float(row["epoch"]).is_integer() == end] for end in (True, False))
        if ends:
            found.append(Line(label, split, _points(name, ends), marked=True))
        if between:
            found.append(Line(label, f"{split} pale", _points(name, between), told=not ends))
    return found


def _points(name: str, rows: Sequence[Row]) -> list[tuple[float, float | None]]:
    return [(float(row["epoch"]), None if row[name] is None else float(row[name])) for row in rows]


def epochs(rows: Sequence[Row]) -> dict[str, Any] | None:
    """A line an epoch with the numbers at its end, the newest of many; None before the first end."""
    ends: dict[float, dict[str, Row]] = {}
    for row in rows:
        if float(row["epoch"]).is_integer():
            ends.setdefault(float(row["epoch"]), {})[row["split"]] = row
    if not ends:
        return None
    shown = sorted(ends)[-MOST_EPOCHS:]
    chosen = [ends[epoch] for epoch in shown]
    columns = [
        (split, name)
        for split in LABELS
        for name in dict.fromkeys(name for each in chosen if split in each for name in measures(each[split]))
    ]
    lines = []
    for epoch, each in zip(shown, chosen, strict=True):
        step = max(int(row["step"]) for row in each.values())
        values = [each.get(split, {}).get(name) for split, name in columns]
        lines.append({"epoch": int(epoch), "step": step, "values": [None if v is None else float(v) for v in values]})
    headings = [f"{LABELS[split]} {spaced(name)}" for split, name in columns]
    return {"headings": headings, "lines": lines, "left_out": len(ends) - len(shown)}
