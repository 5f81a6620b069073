"""path.png and path.svg: where a point went on the landscape of a function, beside the loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from dltrain.landscapes import Landscape, landscape
from dltrain.report.curves import save
from dltrain.report.overlay import COLOURED, COLOURS, GREY, MARKS
from dltrain.run.record import read_rows

Row = dict[str, Any]
Array = np.ndarray[Any, np.dtype[np.float64]]
Walks = Sequence[tuple[str, Sequence[Array]]]

STRETCH = 2.0  # times the usual part is looked at, at most, where a path leaves it
GRID, LEVELS, FEW_STEPS = 240, 24, 60
NOTHING = 1e-18  # of the largest loss, below which a loss is rounding
LIGHT = [withStroke(linewidth=3.0, foreground="white")]


def draw_path(folder: Path) -> list[Path]:
    """Draw the path of a run of data=function; nothing is drawn for another run. Returns the paths of the pictures."""
    walk = walked(read_rows(folder))
    found = None if walk is None else shared_landscape([folder])
    if walk is None or found is None:
        return []
    figure = Figure(figsize=(11.0, 4.8), layout="constrained")
    draw_walks(figure, found, [("", [walk])])
    figure.suptitle(folder.resolve().name, fontsize=11)
    return save(figure, folder, "path")


def shared_landscape(folders: Sequence[Path]) -> Landscape | None:
    """The landscape that all runs' configurations name, where there is such a one."""
    nodes = [yaml.safe_load((folder / "config.yaml").read_text())["data"] for folder in folders]
    named = {tuple(node.get(key) for key in ("name", "function", "dimension", "condition")) for node in nodes}
    if len(named) != 1:
        return None
    name, function, dimension, condition = named.pop()
    return landscape(function, dimension=dimension, condition=condition) if name == "function" else None


def walked(rows: Sequence[Row]) -> Array | None:
    """Step, loss and coordinates of each evaluation (evaluations, 2 + coordinates), the finite ones; None without."""
    evaluated = [row for row in rows if row["split"] == "val" and "x1" in row]
    names = ["step", "loss", *(name for name in (evaluated or [{}])[0] if name.startswith("x"))]
    whole = [[row[name] for name in names] for row in evaluated if all(row[name] is not None for name in names)]
    return np.array(whole, dtype=np.float64) if whole else None


def draw_walks(figure: FigureBase, found: Landscape, walks: Walks) -> None:
    """Draw labels and their walks on the landscape, beside the loss by step; the first ones nearer."""
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    if found.dimension == 1:
        _draw_curve(left, found, walks)
    elif found.dimension == 2:
        _draw_contours(left, found, walks)
    for place, (_, each) in reversed(list(enumerate(walks))):
        for walk in each:
            _draw_walk(left, found, walk, _colour(place), zorder=20 - min(place, 10))
    _draw_losses(right, found, walks)
    left.set_title(found.formula, loc="right", fontsize=9)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    if found.dimension <= 2:
        _draw_key(left, found)
    if len(walks) > 1:
        legend = figure.legend(*right.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        legend.set_alignment("left")


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)] if place < COLOURED else GREY


def _draw_key(axis: Axes, found: Landscape) -> None:
    """What the marks mean, above the panel."""
    ring, diamond = (Line2D([], [], ls="", marker=mark, color="#444444", markersize=7) for mark in "oD")
    ring.set_markerfacecolor("white")
    cross = Line2D([], [], ls="", marker="x", color="black", markersize=7, markeredgewidth=1.6)
    marks = {"start": ring, "end": diamond, **({"minimum": cross} if found.minima else {})}
    how: dict[str, Any] = {
        "loc": "lower left",
        "bbox_to_anchor": (0, 1),
        "ncols": 3,
        "handletextpad": 0.2,
        "borderaxespad": 0.1,
    }
    axis.legend([*marks.values()], [*marks], frameon=False, fontsize=8, **how)


def _draw_walk(axis: Axes, found: Landscape, walk: Array, colour: str, *, zorder: int) -> None:
    """One path: a ring where it starts, a dot a step where these are few, a diamond where it ends."""
    if found.dimension > 2:
        for number, values in enumerate(walk[:, 2:].T, 1):
            axis.plot(walk[:, 0], values, color=colour, alpha=1 / number**0.5, lw=1.2, zorder=zorder)
        axis.set(xlabel="step", ylabel="coordinates")
        axis.grid(alpha=0.25)
        return
    points = (walk[:, 2], walk[:, 1] if found.dimension == 1 else walk[:, 3])
    marker: dict[str, Any] = {"marker": ".", "markersize": 6} if len(walk) <= FEW_STEPS else {}
    axis.plot(*points, color=colour, lw=1.5, zorder=zorder, path_effects=LIGHT, **marker)
    (x0, *_, x1), (y0, *_, y1) = (np.atleast_1d(each)[[0, 0, -1]] for each in points)
    axis.plot(x0, y0, "o", color=colour, markerfacecolor="white", markersize=8, zorder=zorder + 20)
    axis.plot(x1, y1, "D", color=colour, markeredgecolor="white", markersize=8, zorder=zorder + 21)


def _draw_curve(axis: Axes, found: Landscape, walks: Walks) -> None:
    low, high = _view(found.domain[0], [walk[:, 2] for _, each in walks for walk in each])
    x = np.linspace(low, high, 4 * GRID)
    values = found.values(x[:, None], np)
    axis.plot(x, values, color="#7A8B99", lw=2, zorder=1)
    _mark_minima(axis, [(point[0], float(found.values(np.array(point), np))) for point in found.minima])
    margin = 0.06 * np.ptp(values)
    axis.set(xlim=(low, high), ylim=(values.min() - margin, values.max() + margin), xlabel="x", ylabel="f(x)")
    axis.grid(alpha=0.25)


def _draw_contours(axis: Axes, found: Landscape, walks: Walks) -> None:
    """Contours, whose levels crowd around the least value where there is one."""
    bounds = [
        _view(domain, [walk[:, 2 + place] for _, each in walks for walk in each])
        for place, domain in enumerate(found.domain)
    ]
    grid = np.stack(np.meshgrid(*(np.linspace(*each, GRID) for each in bounds)), axis=-1)
    values = found.values(grid, np)
    height = values - values.min() + 1e-3 * np.ptp(values)
    look: dict[str, Any] = {"levels": np.linspace(height.min(), height.max(), LEVELS), "zorder": 0}
    if found.lowest is not None:
        look |= {"levels": np.geomspace(height.min(), height.max(), LEVELS), "norm": LogNorm()}
    axis.contourf(grid[..., 0], grid[..., 1], height, cmap="Blues_r", alpha=0.55, **look)
    axis.contour(grid[..., 0], grid[..., 1], height, colors="#33506B", linewidths=0.5, alpha=0.55, **look)
    _mark_minima(axis, [(point[0], point[1]) for point in found.minima])
    axis.set(xlim=bounds[0], ylim=bounds[1], xlabel="$x_1$", ylabel="$x_2$")


def _mark_minima(axis: Axes, points: Sequence[tuple[float, float]]) -> None:
    for point in points:
        axis.plot(*point, "x", color="black", markersize=8, markeredgewidth=1.6, zorder=12, path_effects=LIGHT)


def _view(domain: tuple[float, float], coordinates: Sequence[Array]) -> tuple[float, float]:
    """The usual part of an axis, and as much around it as the paths need and `STRETCH` allows."""
    width, middle = domain[1] - domain[0], sum(domain) / 2
    margin = 0.04 * width
    low, high = min(each.min() for each in coordinates) - margin, max(each.max() for each in coordinates) + margin
    half = STRETCH * width / 2
    return max(min(low, domain[0]), middle - half), min(max(high, domain[1]), middle + half)


def _draw_losses(axis: Axes, found: Landscape, walks: Walks) -> None:
    """The loss, or how far it is above the least value where there is one, on a logarithmic scale."""
    lowest = found.lowest
    for place, (label, each) in enumerate(walks):
        for number, walk in enumerate(each):
            above = walk[:, 1] - (lowest or 0.0)
            shown = above if lowest is None else np.where(above > 0, above, np.nan)
            how: dict[str, Any] = (
                {"marker": MARKS[place % len(MARKS)], "markersize": 4} if len(walk) <= FEW_STEPS else {}
            )
            axis.plot(
                walk[:, 0],
                shown,
                color=_colour(place),
                lw=1.5,
                zorder=20 - min(place, 10),
                label=None if number else label,
                **how,
            )
    if lowest is not None:
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.set_ylim(max(low, NOTHING * high), high)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="step", ylabel=f"f(x) - {lowest:g}" if lowest else "f(x)")
    axis.grid(alpha=0.25)
