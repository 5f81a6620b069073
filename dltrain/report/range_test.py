"""lr-find.png and lr-find.svg: the loss over a rate that grows, drawn from the record of a range test."""

from pathlib import Path

from matplotlib.figure import Figure

from dltrain.report.curves import STYLES, save
from dltrain.run.range_test import judge
from dltrain.run.record import read_rows


def draw_range_test(folder: Path) -> list[Path]:
    """Draw the record of a test's folder; returns the paths."""
    verdict = judge(read_rows(folder))
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.plot(verdict.rates, verdict.losses, ".", color="#9AA5B1", markersize=5, label="loss of each step")
    axis.plot(verdict.rates, verdict.smoothed, color=STYLES["train"]["color"], lw=2, label="smoothed")
    if verdict.diverged is not None:
        style = {"color": STYLES["val"]["color"], "linestyle": "--"}
        axis.axvline(verdict.diverged, **style, label=f"diverges from {verdict.diverged:.2g} on")
    if verdict.suggestion is not None:
        style = {"color": STYLES["test"]["color"], "linestyle": "-."}
        axis.axvline(verdict.suggestion, **style, label=f"suggestion: {verdict.suggestion:g}")
    axis.set_xscale("log")
    if len(verdict.smoothed):
        low, high = verdict.smoothed.min(), verdict.smoothed.max()
        axis.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 0.25 * (high - low) + 1e-9)
    axis.set(xlabel="learning rate", ylabel="training loss")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    figure.suptitle(folder.resolve().name, fontsize=11)
    return save(figure, folder, "lr-find")
