"""curves.png and curves.svg: loss, accuracy or perplexity, and learning rate of a run, drawn from its record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dltrain.run.record import read_rows

Row = dict[str, Any]

# Okabe and Ito's colours, which colour-blind people can tell apart; shape and dash say the same again.
STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "val": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "test": {"color": "#009E73", "linestyle": ":", "marker": "D"},
}
HUGE = 100  # times the median
LABELS = {"train": "train", "val": "validation", "test": "test"}


def draw_curves(folder: Path) -> list[Path]:
    """Draw the record of a run folder; nothing is drawn where it has no rows. Returns the paths."""
    rows = read_rows(folder)
    if not rows:
        return []
    numbers = [name for name in ("loss", "accuracy", "perplexity") if any(name in row for row in rows)]
    figure = Figure(figsize=(4.2 * len(numbers) + 4.2, 3.6))
    # A layout engine would take longer than all the drawing.
    figure.subplots_adjust(left=0.17 / (len(numbers) + 1), right=0.99, bottom=0.15, top=0.84, wspace=0.22)
    *axes, rate = figure.subplots(1, len(numbers) + 1)
    for axis, name in zip(axes, numbers, strict=True):
        draw_number(axis, name, rows)
        decorate(axis, name)
    draw_rate(rate, rows)
    decorate(rate, "learning rate")
    for axis in (*axes, rate):
        axis.set_xlim(0, 1.03 * max(row["epoch"] for row in rows))
    axes[0].legend(frameon=False)
    figure.suptitle(folder.resolve().name, fontsize=11)
    return save(figure, folder, "curves")


def draw_number(axis: Axes, name: str, rows: Sequence[Row]) -> None:
    """One number over epochs, a line a split: pale between the epochs' ends, with a mark at each end."""
    for split, style in STYLES.items():
        mine = [row for row in rows if row["split"] == split and row.get(name) is not None]
        ends, between = ([row for row in mine if row["epoch"].is_integer() == whole] for whole in (True, False))
        if between:
            pale = {"color": style["color"], "alpha": 0.35, "linewidth": 1}
            axis.plot(*points(name, between), **pale, label=f"{LABELS[split]}, within epochs")
        if mine:
            chosen = split == "test" and len(mine) == 1 and any(row["split"] == "val" for row in rows)
            label = f"{LABELS[split]}, best weights" if chosen else LABELS[split]
            axis.plot(*points(name, ends), **style, markersize=5, label=label)
    values = sorted(row[name] for row in rows if row.get(name) is not None)
    if values and values[0] > 0 and values[-1] > HUGE * values[len(values) // 2]:
        axis.set_yscale("log")  # or a few steps that ran away would press all others flat


def draw_rate(axis: Axes, rows: Sequence[Row]) -> None:
    """The learning rate over epochs, from 0 up."""
    train = [row for row in rows if row["split"] == "train"]
    if not train:
        return
    axis.plot(*points("lr", train), color=STYLES["train"]["color"], marker="" if len(train) > 2 else "o", markersize=5)
    axis.set_ylim(0, 1.08 * max(row["lr"] for row in train))


def decorate(axis: Axes, title: str) -> None:
    """What every panel over epochs has."""
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def points(name: str, rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Epochs and values of a number."""
    return [row["epoch"] for row in rows], [row[name] for row in rows]


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        figure.savefig(path, dpi=130)
    return paths
