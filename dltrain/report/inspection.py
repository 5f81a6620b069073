"""inspect.png: how values are spread in the layers of a network, and how gradients change with depth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dltrain.run.folder import writing

Row = Mapping[str, Any]
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#888888"  # of Okabe and Ito's colours
COLUMNS, MOST_PANELS = 5, 10
LONGEST_NAME = 24
ACTIVATIONS = {"ReLU", "Sigmoid", "Tanh", "GELU", "LeakyReLU", "ELU", "SiLU", "ResidualBlock"}


def draw_inspection(
    parameters: Sequence[Row],
    activations: Sequence[Row],
    *,
    limits: tuple[float, float] | None,
    folder: Path,
    title: str,
) -> Path:
    """Histograms of the activations above; mean and deviation by layer, and gradient norms by depth, below.

    Outside the limits a gradient norm vanishes or explodes. Returns the path. Raises WriteError.
    """
    shown = _shown(activations)
    panels = _some(shown, MOST_PANELS)
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure: Any = Figure(figsize=(15, 4.6 + 2.1 * lines), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.1 * lines, 4.2], hspace=0.04)
    for axis, row in zip(top.subplots(lines, columns, squeeze=False).flat, panels, strict=False):
        _draw_histogram(axis, row)
    for axis in top.axes[len(panels) :]:
        axis.remove()
    by_layer, by_depth = bottom.subplots(1, 2)
    _draw_activations(by_layer, shown)
    _draw_gradients(by_depth, parameters, limits)
    figure.suptitle(title, fontsize=12)
    path = folder / "inspect.png"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    return path


def _shown(activations: Sequence[Row]) -> list[Row]:
    """Activations, or all layers where there are none, and the output."""
    inner = activations[:-1]
    return [*([row for row in inner if row["kind"] in ACTIVATIONS] or inner), *activations[-1:]]


def _some(rows: Sequence[Row], most: int) -> list[Row]:
    """So many rows at most, evenly chosen, the first and the last among them."""
    count = min(len(rows), most)
    return [rows[round(place * (len(rows) - 1) / max(1, count - 1))] for place in range(count)]


def _draw_histogram(axis: Axes, row: Row) -> None:
    """The values other than zero; the share of zeros is told."""
    axis.stairs(row["counts"], row["edges"], fill=True, color=BLUE, alpha=0.8)
    axis.set_title(f"{_short(row['name'])}  {row['kind']}", fontsize=9)
    axis.set_yticks([])
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.spines[["top", "right", "left"]].set_visible(False)
    told = f"mean {row['mean']:.2g}\nstd {row['deviation']:.2g}"
    if row["zeros"] >= 0.005:
        told += f"\nzero {row['zeros']:.0%}"
    if row["dead"]:
        told += f"\ndead {row['dead']} of {row['units']}"
    axis.text(0.98, 0.97, told, transform=axis.transAxes, ha="right", va="top", fontsize=8)


def _draw_activations(axis: Axes, activations: Sequence[Row]) -> None:
    places = range(len(activations))
    means = [row["mean"] for row in activations]
    low = [row["mean"] - row["deviation"] for row in activations]
    high = [row["mean"] + row["deviation"] for row in activations]
    axis.fill_between(places, low, high, color=BLUE, alpha=0.2, linewidth=0, label="one deviation around it")
    axis.plot(places, means, color=BLUE, marker="o", markersize=3.5, label="mean")
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.legend(frameon=False, fontsize=8)
    _decorate(axis, "activations by depth, the first layer left", [row["name"] for row in activations])


def _draw_gradients(axis: Axes, parameters: Sequence[Row], limits: tuple[float, float] | None) -> None:
    """Of the weights, in the order in which they run; what is zero cannot be drawn on this scale."""
    deep = sorted((row for row in parameters if row["depth"] is not None), key=lambda row: row["depth"])
    norms = [row["gradient"] or float("nan") for row in deep]
    axis.plot(range(len(deep)), norms, color=ORANGE, marker="o", markersize=4)
    for limit, word in zip(limits or (), ("vanishing below", "exploding above"), strict=False):
        axis.axhline(limit, color=GREY, linestyle="--", linewidth=1)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
        axis.annotate(word, (1, limit), xytext=(-4, 3), fontsize=8, color=GREY, **place)
    axis.set_yscale("log")
    _decorate(axis, "gradient norms of the weights by depth", [row["name"].removesuffix(".weight") for row in deep])


def _decorate(axis: Axes, title: str, names: Sequence[str]) -> None:
    """A panel over layers, of which as many are named as there is room for."""
    step = -(-len(names) // 14)
    places = range(0, len(names), step)
    turned: dict[str, Any] = {"rotation": 40, "ha": "right"} if max(map(len, names)) > 5 else {}
    axis.set_xticks(places, [_short(names[place]) for place in places], fontsize=8, **turned)
    axis.set_title(title, fontsize=11)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]
