"""The curves of many runs over one another: the first settings in colour, the others grey behind them."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from dltrain.report.curves import HUGE, LABELS, decorate, points

Row = dict[str, Any]
Runs = Sequence[Sequence[Row]]
Curves = Sequence[tuple[str, Runs]]
Line = tuple[list[float], list[float]]

# Okabe and Ito's colours; marks and dashes tell settings apart too, and go on when the colours are used up.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "D", "^", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")
COLOURED = 10
MOST_MARKS = 15  # on a curve
GREY = "#B8B8B8"
FEW = 8  # runs whose steps within epochs can be seen apart
SHORT = 2  # epochs, the ends of which are too few to see a course


def draw_overlay(figure: FigureBase, curves: Curves, *, coloured: int) -> None:
    """Draw labels and their runs, the best first: validation where there is any, the first `coloured` of them told."""
    records = [rows for _, runs in curves for rows in runs]
    split = "val" if any(row["split"] == "val" for rows in records for row in rows) else "train"
    chosen = [row for rows in records for row in rows if row["split"] == split]
    drawn = ("loss", "accuracy", "perplexity")
    numbers = [name for name in drawn if any(row.get(name) is not None for row in chosen)] or ["loss"]
    axes = figure.subplots(1, len(numbers), squeeze=False)[0]
    seeds = any(len(runs) > 1 for _, runs in curves)
    pale = (len(records) <= FEW and not seeds) or all(row["epoch"] <= SHORT for row in chosen)
    notes = ["thick: mean, thin: each seed"] * seeds + ["pale: training, within epochs"] * pale
    for axis, name in zip(axes, numbers, strict=True):
        for place, (label, runs) in enumerate(curves[:coloured]):
            if pale:
                _draw_within(axis, name, runs, COLOURS[place % len(COLOURS)])
            _draw_setting(axis, _ends(name, split, runs), place, label)
        others = [runs for _, runs in curves[coloured:] if runs]
        _draw_grey(axis, [line for runs in others for line in _ends(name, split, runs)], f"{len(others)} more")
        decorate(axis, f"{LABELS[split]} {name}")
        axis.set_xlim(left=0)
        _tame(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8, handlelength=3)
    legend.set_title("\n".join(notes))
    legend.get_title().set_fontsize(8)
    legend.set_alignment("left")


def _ends(name: str, split: str, runs: Runs) -> list[Line]:
    """A curve a run: its number at the ends of epochs."""
    chosen = [
        [row for row in rows if row["split"] == split and row.get(name) is not None and row["epoch"].is_integer()]
        for rows in runs
    ]
    return [points(name, rows) for rows in chosen]


def _draw_grey(axis: Axes, curves: Sequence[Line], label: str) -> None:
    for place, curve in enumerate(curves):
        axis.plot(*curve, color=GREY, linewidth=0.8, zorder=1, label=None if place else label)


def _draw_within(axis: Axes, name: str, runs: Runs, colour: str) -> None:
    for rows in runs:
        between = [row for row in rows if row["split"] == "train" and not row["epoch"].is_integer()]
        axis.plot(*points(name, [row for row in between if row.get(name) is not None]), color=colour, alpha=0.3, lw=1)


def _draw_setting(axis: Axes, curves: Sequence[Line], place: int, label: str) -> None:
    """The seeds thin, their mean thick at the epochs that all of them have; the better the setting the nearer."""
    colour, nearer = COLOURS[place % len(COLOURS)], 2 + COLOURED - place
    if len(curves) > 1:
        for curve in curves:
            few = len(curve[0]) <= 2 * MOST_MARKS
            axis.plot(*curve, color=colour, alpha=0.4, lw=0.8, marker="." if few else "", markersize=3, zorder=nearer)
    epochs, means = _mean(curves)
    axis.plot(
        epochs,
        means,
        color=colour,
        marker=MARKS[place % len(MARKS)],
        markevery=max(1, len(epochs) // MOST_MARKS),
        linestyle=DASHES[place // len(COLOURS) % len(DASHES)],
        markersize=5,
        linewidth=1.8,
        zorder=nearer,
        label=label,
    )


def _mean(curves: Sequence[Line]) -> Line:
    by_epoch = [dict(zip(*curve, strict=True)) for curve in curves if curve[0]]
    shared = sorted(set.intersection(*map(set, by_epoch))) if by_epoch else []
    return shared, [fmean(values[epoch] for values in by_epoch) for epoch in shared]


def _tame(axis: Axes) -> None:
    """A logarithmic scale where a run that went astray would press all others flat; a grey one is cut off instead."""
    told, grey = _heights(axis, grey=False), _heights(axis, grey=True)
    if len(told) == 0:
        return
    limit = HUGE * np.median(told)
    if told.min() > 0 and told.max() > limit:
        axis.set_yscale("log")
    elif len(grey) and grey.max() > limit > 0:
        sane = np.concatenate([told, grey[grey <= limit]])
        margin = 0.05 * (np.ptp(sane) or sane.max())
        axis.set_ylim(sane.min() - margin, sane.max() + margin)


def _heights(axis: Axes, *, grey: bool) -> np.ndarray:
    return np.concatenate(
        [np.empty(0), *(line.get_ydata() for line in axis.lines if (line.get_color() == GREY) == grey)]
    )
