"""curves.png and curves.svg: loss, accuracy and learning rate of a run, drawn from its record."""

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
LABELS = {"train": "train", "val": "validation", "test": "test"}


def draw_curves(folder: Path) -> list[Path]:
    """Draw the record of a run folder; nothing is drawn where it has no rows. Returns the paths."""
    rows = read_rows(folder)
    if not rows:
        return []
    numbers = [name for name in ("loss", "accuracy") if any(name in row for row in rows)]
    panels = [*numbers, "lr"]
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, name in zip(axes, panels, strict=True):
        draw_panel(axis, name, rows)
    axes[0].legend(frameon=False)
    figure.suptitle(folder.resolve().name, fontsize=11)
    return save(figure, folder, "curves")


def draw_panel(axis: Axes, name: str, rows: Sequence[Row]) -> None:
    """One number over epochs, a line a split: pale between the epochs' ends, with a mark at each end."""
    for split, style in STYLES.items():
        points = [(row["epoch"], row[name]) for row in rows if row["split"] == split and row.get(name) is not None]
        if not points:
            continue
        if name == "lr":
            axis.plot(*zip(*points, strict=True), color=style["color"], drawstyle="steps-pre")
            continue
        ends = [(epoch, value) for epoch, value in points if epoch == int(epoch)]
        if len(points) > len(ends):
            axis.plot(*zip(*points, strict=True), color=style["color"], alpha=0.35, linewidth=1)
        axis.plot(*zip(*ends, strict=True), **style, markersize=5, label=LABELS[split]) if ends else None
    axis.set_title({"lr": "learning rate"}.get(name, name), fontsize=11)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axis.set_xlim(0, max(row["epoch"] for row in rows) * 1.03)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        figure.savefig(path, dpi=130)
    return paths
