"""Pictures for terminals: curves with their axes and legend, in characters."""

import math
from collections.abc import Sequence

from rich.text import Text

from dltrain.report.canvas import Canvas, Curve, place

MOST_TICKS = 6


def panel(title: str, curves: Sequence[Curve], *, width: int, height: int) -> list[Text]:
    """A title with the legend, a picture and its two axes: `height` lines, none longer than `width`."""
    known = [point for curve in curves for part in curve.parts() for point in part]
    heading = Text(f"{title} by step", style="bold")
    for curve in curves:
        heading.append(f"  {curve.mark or '⠒⠒'} {curve.name}", style=f"not bold {curve.style}")
    heading.truncate(width)
    if not known:
        return [heading, *(Text() for _ in range(height - 1))]
    low, high = _bounds([y for _, y in known])
    rows = height - 2
    marks = {
        place(tick, high, low, rows - 1): f"{tick:g}"
        for tick in ticks(low, high, min(MOST_TICKS, max(2, 2 * rows // 3)))
    }
    margin = max(map(len, marks.values()), default=0)
    left, right = _bounds([x for x, _ in known])
    canvas = Canvas(width - margin - 2, rows, (left, right), (low, high))
    for curve in curves:
        canvas.draw(curve)
    sides = [f"{marks.get(row, ''):>{margin}} {'┤' if row in marks else '│'}" for row in range(rows)]
    lines = [Text(side).append_text(line) for side, line in zip(sides, canvas.lines(), strict=True)]
    for line in lines:
        line.rstrip()
    return [heading, *lines, Text(" " * (margin + 2) + axis(left, right, canvas.width).rstrip())]


def axis(left: float, right: float, width: int) -> str:
    """Round numbers of steps below their places, as many as have room."""
    line = " " * width
    for tick in ticks(left, right, max(2, width // 12)):
        label = f"{tick:,.0f}" if tick.is_integer() else ""  # there are no parts of a step
        start = min(max(0, place(tick, left, right, width - 1) - len(label) // 2), width - len(label))
        if start >= 0 and not line[max(0, start - 1) : start + len(label) + 1].strip():
            line = line[:start] + label + line[start + len(label) :]
    return line


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within bounds: multiples of 1, 2 or 5 times a power of ten, `most` of them or fewer."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * factor for factor in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < most:
            return [float(f"{number * step:.12g}") for number in range(first, last + 1)]
    raise AssertionError("a step of twenty times the power is wide enough")


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest, and some room where they are one."""
    low, high = min(values), max(values)
    room = 0.0 if high - low > 1e-12 * max(abs(low), abs(high)) else max(0.05 * abs(high), 1e-9)
    return low - room, high + room
