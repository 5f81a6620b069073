"""What each setting of a sweep did to its result: a panel a setting, and a heat map of a grid of two."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import FigureBase
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from dltrain.report.names import short_values
from dltrain.report.overlay import COLOURED, COLOURS, GREY, MARKS

Point = tuple[Mapping[str, str], float]
Panel = Callable[[Axes, str], None]

MOST_KEYS, MOST_CATEGORIES, MOST_TICKS, MOST_CELLS, MOST_LETTERS = 4, 16, 8, 8, 26
WIDE = 20  # largest over smallest, from where a scale is logarithmic
LONGEST_CATEGORY, LONGEST_NUMBER = 16, 9
LETTER = 0.025  # of a panel's width
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples lie apart from one another, however many there are
BLUE, BLACK = "#0072B2", "#000000"
MOST_WORDS = 4


def panels(results: Sequence[Point]) -> list[Panel]:
    """What to draw of jobs' settings and results: a slice for each of the first four keys, a heat map of a grid."""
    keys = list(dict.fromkeys(key for settings, _ in results for key in settings))
    varied = [key for key in keys if len({settings.get(key) for settings, _ in results}) > 1]
    sliced = {key: _other(results, varied, key) for key in varied[:MOST_KEYS]}
    found: list[Panel] = [partial(_slice, points=results, key=key, by=other) for key, other in sliced.items()]
    if len(varied) == 2 and _is_grid(results, *varied):
        found.append(partial(_heat_map, points=results, keys=varied))
    return found


def gap(pairs: Sequence[Sequence[tuple[float, float]]], name: str) -> Panel:
    """What each job reached in training against what it reached in validation, by setting, the best setting first."""
    return partial(_gap, pairs=pairs, word=name.rpartition("_")[2])


def _gap(axis: Axes, name: str, *, pairs: Sequence[Sequence[tuple[float, float]]], word: str) -> None:
    for place, setting in reversed([*enumerate(pairs)]):
        told = place < COLOURED
        colour = COLOURS[place % len(COLOURS)] if told else GREY
        axis.plot(*zip(*setting, strict=True), MARKS[place % len(MARKS)], color=colour, markersize=6, alpha=0.8, mew=0)
    limits = [min(axis.get_xlim()[0], axis.get_ylim()[0]), max(axis.get_xlim()[1], axis.get_ylim()[1])]
    axis.plot(limits, limits, color=GREY, linewidth=1, zorder=0)
    axis.set(xlabel=f"training {word}", xlim=limits, ylim=limits)
    axis.set_title("below the line: over-fitted", fontsize=9)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _other(points: Sequence[Point], varied: Sequence[str], key: str) -> str | None:
    """Where two settings vary and the other one is a choice between few words: that one."""
    others = [name for name in varied if name != key]
    if len(others) != 1:
        return None
    words = list(_by_value(points, others[0]))
    return others[0] if len(words) <= MOST_WORDS and _numbers(words) is None else None


def draw_slices(figure: FigureBase, drawn: Sequence[Panel], column: str) -> None:
    """Draw the panels side by side."""
    name = column.replace("val_", "validation ").replace("_", " ")
    figure.suptitle(f"{name} of each completed job, by setting (line: mean)", fontsize=11)
    alone = len(drawn) == 1  # in the middle, for a panel as wide as the page is hard to read
    grid = figure.add_gridspec(1, 3 if alone else len(drawn), width_ratios=[1, 2, 1] if alone else None, wspace=0.06)
    axes = [figure.add_subplot(grid[0, place + alone]) for place in range(len(drawn))]
    for axis, panel in zip(axes, drawn, strict=True):
        panel(axis, name)
    axes[0].set_ylabel(name)


def _slice(axis: Axes, name: str, *, points: Sequence[Point], key: str, by: str | None = None) -> None:
    by_value = _by_value(points, key)
    numbers = _numbers(list(by_value))
    if numbers is None:
        _draw_categories(axis, by_value)
    elif by is None:
        _draw_numbers(axis, by_value)
        _tick_numbers(axis, by_value, numbers)
    else:
        for word, colour in zip(_by_value(points, by), COLOURS, strict=False):
            chosen = [(settings, result) for settings, result in points if settings.get(by, "default") == word]
            _draw_numbers(axis, _by_value(chosen, key), colour=colour, label=f"{by.rpartition('.')[2]}={word}")
        _tick_numbers(axis, by_value, numbers)
        axis.legend(frameon=False, fontsize=9)
    axis.set_xlabel(key)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _by_value(points: Sequence[Point], key: str) -> dict[str, list[float]]:
    """Results by the text of a setting's value: numbers in their order, words as they first come."""
    found: dict[str, list[float]] = {}
    for settings, result in points:
        found.setdefault(settings.get(key, "default"), []).append(result)
    numbers = _numbers(list(found))
    return found if numbers is None else dict(sorted(found.items(), key=lambda item: float(item[0])))


def _numbers(texts: Sequence[str]) -> list[float] | None:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return sorted(numbers) if all(map(math.isfinite, numbers)) else None


def _draw_numbers(
    axis: Axes, by_value: Mapping[str, Sequence[float]], *, colour: str | None = None, label: str | None = None
) -> None:
    """Points over a number, and their mean where values come again or a colour tells these from others."""
    numbers = [float(text) for text in by_value]
    for number, results in zip(numbers, by_value.values(), strict=True):
        axis.plot([number] * len(results), results, "o", color=colour or BLUE, alpha=0.5, ms=5, mew=0)
    if colour or sum(map(len, by_value.values())) >= 2 * len(by_value):
        means = [fmean(results) for results in by_value.values()]
        few = len(numbers) <= MOST_TICKS
        axis.plot(numbers, means, color=colour or BLACK, marker="_" if few else "", markersize=12, label=label)


def _tick_numbers(axis: Axes, by_value: Mapping[str, Sequence[float]], numbers: Sequence[float]) -> None:
    """A logarithmic scale where numbers span much, and a tick each where they are few."""
    if numbers[0] > 0 and numbers[-1] > WIDE * numbers[0]:
        axis.set_xscale("log")
    if len(numbers) <= MOST_TICKS:
        texts = list(short_values(list(by_value), LONGEST_NUMBER).values())
        kept = _apart([math.log(number) for number in numbers] if axis.get_xscale() == "log" else numbers, texts)
        axis.xaxis.set_major_locator(FixedLocator([numbers[place] for place in kept]))
        axis.xaxis.set_major_formatter(FixedFormatter([texts[place] for place in kept]))
        axis.xaxis.set_minor_locator(NullLocator())


def _apart(positions: Sequence[float], texts: Sequence[str]) -> list[int]:
    """The places of the positions at which there is room for their texts."""
    kept, letter = [0], LETTER * (positions[-1] - positions[0])
    for place in range(1, len(positions)):
        wanted = letter * (len(texts[kept[-1]]) + len(texts[place]) + 2) / 2
        if positions[place] - positions[kept[-1]] >= wanted:
            kept.append(place)
    return kept


def _draw_categories(axis: Axes, by_value: Mapping[str, Sequence[float]]) -> None:
    """Points beside one another over each word."""
    shown = dict(list(by_value.items())[:MOST_CATEGORIES])
    for place, results in enumerate(shown.values()):
        beside = 0.3 * ((GOLDEN * np.arange(len(results)) + 0.5) % 1 - 0.5)
        axis.plot(place + beside, results, "o", color=BLUE, alpha=0.5, markersize=5, markeredgewidth=0)
        if len(results) > 1:
            axis.hlines(fmean(results), place - 0.3, place + 0.3, color=BLACK)
    _tick(axis.xaxis, list(shown))
    axis.set_xlim(-0.6, len(shown) - 0.4)
    if len(by_value) > MOST_CATEGORIES:
        axis.set_title(f"the first {MOST_CATEGORIES} of {len(by_value)} values", fontsize=9)


def _is_grid(points: Sequence[Point], first: str, second: str) -> bool:
    """Whether most combinations of few values were run."""
    rows, columns = _by_value(points, first), _by_value(points, second)
    cells = {(settings.get(first), settings.get(second)) for settings, _ in points}
    return max(len(rows), len(columns)) <= MOST_CELLS and 2 * len(cells) > len(rows) * len(columns)


def _heat_map(axis: Axes, name: str, *, points: Sequence[Point], keys: Sequence[str]) -> None:
    """The mean of each combination of two settings, written into its cell: the brighter the better."""
    rows, columns = (list(_by_value(points, key)) for key in keys)
    cells: dict[tuple[int, int], list[float]] = {}
    for settings, value in points:
        row, column = (settings.get(key, "default") for key in keys)
        cells.setdefault((rows.index(row), columns.index(column)), []).append(value)
    means = np.full((len(rows), len(columns)), np.nan)
    for cell, values in cells.items():
        means[cell] = fmean(values)
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    colours = "cividis_r" if name.endswith("loss") else "cividis"
    axis.imshow(means, cmap=colours, aspect="auto", vmin=low, vmax=high if high > low else low + 1)
    for (row, column), mean in np.ndenumerate(means):
        worse = (high - mean if name.endswith("accuracy") else mean - low) > 0.5 * (high - low)
        text = "-" if np.isnan(mean) else f"{mean:.4f}"
        colour = "white" if worse else "black"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 if len(columns) <= 4 else 6)
    _tick(axis.xaxis, columns)
    _tick(axis.yaxis, rows)
    axis.set(xlabel=keys[1], ylabel=keys[0])
    axis.set_title(f"mean {name} (brighter is better)", fontsize=9)


def _tick(axis: Axis, texts: Sequence[str]) -> None:
    """A tick a word, slanted where they would run into one another."""
    words = list(short_values(texts, LONGEST_CATEGORY).values())
    axis.set_ticks(range(len(words)), words, fontsize=9)
    if axis is axis.axes.xaxis and sum(map(len, words)) > MOST_LETTERS:
        axis.set_tick_params(rotation=40)
        for label in axis.get_ticklabels():
            label.set(ha="right", rotation_mode="anchor")
