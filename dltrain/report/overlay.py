"""sweep.png and sweep.svg: the curves of many runs in one picture, labelled by what differs."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from dltrain.report.curves import LABELS, decorate, points, save
from dltrain.run.record import read_rows

# Okabe and Ito's colours; marks and dashes tell runs apart too, and go on when the colours are used up.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "D", "^", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")


def draw_overlay(runs: Mapping[str, Path], folder: Path) -> list[Path]:
    """Draw the runs, a label each, the best first: validation where all have it, over pale training curves.

    Returns the paths; nothing is drawn where no run has rows.
    """
    records = {label: rows for label, path in runs.items() if (rows := read_rows(path))}
    if not records:
        return []
    split = "val" if all(any(row["split"] == "val" for row in rows) for rows in records.values()) else "train"
    numbers = [name for name in ("loss", "accuracy") if any(name in row for rows in records.values() for row in rows)]
    figure = Figure(figsize=(5 * len(numbers) + 2.5, 4), layout="constrained")
    axes = figure.subplots(1, len(numbers), squeeze=False)[0]
    for axis, name in zip(axes, numbers, strict=True):
        for place, (label, rows) in enumerate(records.items()):
            colour = COLOURS[place % len(COLOURS)]
            present = [row for row in rows if row.get(name) is not None]
            ends = [row for row in present if row["split"] == split and row["epoch"].is_integer()]
            between = [row for row in present if row["split"] == "train" and not row["epoch"].is_integer()]
            style = {"marker": MARKS[place % len(MARKS)], "linestyle": DASHES[place // len(COLOURS) % len(DASHES)]}
            axis.plot(*points(name, between), color=colour, alpha=0.3, linewidth=1)
            axis.plot(*points(name, ends), color=colour, **style, markersize=5, label=label)
        decorate(axis, f"{LABELS[split]} {name} (pale: within training epochs)")
        axis.set_xlim(left=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
    return save(figure, folder, "sweep")
