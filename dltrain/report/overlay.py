"""sweep.png and sweep.svg: the curves of many runs in one picture, labelled by what differs."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dltrain.report.curves import save
from dltrain.run.record import read_rows

# Okabe and Ito's colours; beyond them the dashes change.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")


def draw_overlay(runs: Mapping[str, Path], folder: Path) -> list[Path]:
    """Draw the runs, a label each, best first: validation where there is one, else training. Returns the paths."""
    records = {label: read_rows(path) for label, path in runs.items()}
    records = {label: rows for label, rows in records.items() if rows}
    if not records:
        return []
    split = "val" if all(any(row["split"] == "val" for row in rows) for rows in records.values()) else "train"
    numbers = [name for name in ("loss", "accuracy") if any(name in row for rows in records.values() for row in rows)]
    figure = Figure(figsize=(5 * len(numbers) + 2.5, 4), layout="constrained")
    axes = figure.subplots(1, len(numbers), squeeze=False)[0]
    for axis, name in zip(axes, numbers, strict=True):
        for place, (label, rows) in enumerate(records.items()):
            points = [(row["epoch"], row[name]) for row in rows if row["split"] == split and row.get(name) is not None]
            if points:
                style = {
                    "color": COLOURS[place % len(COLOURS)],
                    "linestyle": DASHES[place // len(COLOURS) % len(DASHES)],
                }
                axis.plot(*zip(*points, strict=True), **style, marker="o", markersize=4, label=label)
        axis.set_title(f"{'validation' if split == 'val' else 'training'} {name}", fontsize=11)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    return save(figure, folder, "sweep")
