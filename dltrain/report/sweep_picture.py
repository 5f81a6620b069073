"""sweep.png and sweep.svg: the curves or paths of a sweep's settings, and below what each did to the result."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure, FigureBase

from dltrain.report import names
from dltrain.report.curves import save
from dltrain.report.overlay import COLOURED, Curves, draw_overlay
from dltrain.report.path import draw_walks, shared_landscape, walked
from dltrain.report.slices import draw_slices, gap, panels
from dltrain.run.folder import RunError
from dltrain.run.record import read_rows

Row = dict[str, Any]
WIDTH, HEIGHT = 13.0, 4.2
MOST_PANELS = 4


def draw_sweep(groups: Mapping[str, Sequence[Row]], folder: Path, *, column: str) -> list[Path]:
    """Draw the jobs of a sweep folder, given as rows by setting without seed, the best setting first.

    `column` is the result that the settings are ranked by; without one there are curves alone. Returns the paths;
    nothing is drawn where no job has a record.
    """
    completed = [row for group in groups.values() for row in group if row["status"] == "completed"]
    curves = _curves(list(groups.values()), folder)
    if not any(runs for _, runs in curves):
        return []
    below = panels([(_settings(row), row[column]) for row in completed if row.get(column) is not None])
    pairs = _pairs(groups.values(), column)
    if below and len(below) < MOST_PANELS and len(pairs) > 1 and column.endswith("accuracy"):
        below.append(gap(pairs, column))
    figure = Figure(figsize=(WIDTH, HEIGHT * (2 if below else 1)), layout="constrained")
    top: FigureBase = figure
    if below:
        top, bottom = figure.subfigures(2, 1, squeeze=False, hspace=0.05)[:, 0]
        draw_slices(bottom, below, column)
    walks = [(label, [walk for rows in runs if (walk := walked(rows)) is not None]) for label, runs in curves]
    if any(found for _, found in walks) and (found := shared_landscape(_folders(groups, folder))):
        draw_walks(top, found, [walk for walk in walks if walk[1]])
        return save(figure, folder, "sweep")
    finished = sum(any(row["status"] == "completed" for row in group) for group in groups.values())
    draw_overlay(top, curves, coloured=min(COLOURED, finished or len(curves)))
    return save(figure, folder, "sweep")


def _pairs(groups: Iterable[Sequence[Row]], column: str) -> list[list[tuple[float, float]]]:
    """A number of training and the one of validation, of each completed job, by setting."""
    trained = column.replace("val_", "train_")
    found = [[(row.get(trained), row.get(column)) for row in group if row["status"] == "completed"] for group in groups]
    whole = [[(x, y) for x, y in group if x is not None and y is not None] for group in found]
    return [group for group in whole if group]


def _folders(groups: Mapping[str, Sequence[Row]], folder: Path) -> list[Path]:
    """Those of all jobs that began."""
    jobs = [folder / str(row["job"]) for group in groups.values() for row in group]
    return [job for job in jobs if (job / "config.yaml").is_file()]


def _curves(groups: Sequence[Sequence[Row]], folder: Path) -> Curves:
    """A label and the records of each group: of its completed jobs, and of all where there is none."""
    labels = names.labels([_settings(group[0]) for group in groups][:COLOURED])
    labels += [""] * (len(groups) - len(labels))
    curves = []
    for place, (label, group) in enumerate(zip(labels, groups, strict=True), 1):
        completed = [row for row in group if row["status"] == "completed"]
        mark = "" if len(groups) == 1 else f"{place}. " if completed else f"{group[0]['status']}: "
        records = [_record(folder / str(row["job"])) for row in completed or group]
        curves.append((mark + label, [rows for rows in records if rows]))
    return curves


def _record(folder: Path) -> list[Row]:
    """The rows of a run; none of a damaged record, which must not keep the others from being seen."""
    try:
        return read_rows(folder)
    except RunError:
        return []


def _settings(row: Row) -> dict[str, str]:
    return {key: value for key, value in row["settings"].items() if key != "seed"}
