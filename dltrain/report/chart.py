"""Line charts as numbers that a page's template draws: small, and in the page's own colours."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Point = tuple[float, float | None]

WIDTH, HEIGHT = 360.0, 196.0
TOP, RIGHT, BOTTOM, LETTER = 10.0, 14.0, 34.0, 6.6
HUGE = 100  # largest over median, from where a scale is logarithmic, as in curves.png
MOST_POINTS = 240  # of a line: beyond, the least and the greatest of each stretch are drawn
FEW = 30  # points that get a mark each


@dataclass(frozen=True)
class Line:
    """Points (x, y) in the order of x, a y of None leaving a gap; of several lines the first lies on top.

    `look` names its class in the style sheet.
    """

    label: str
    look: str
    points: Sequence[Point]
    told: bool = True  # in the legend
    marked: bool = False


@dataclass
class Drawn:
    """A chart ready to be drawn: positions in units of its width and height, and texts."""

    title: str
    told: str
    x_label: str
    width: float = WIDTH
    height: float = HEIGHT
    left: float = 0.0
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def bottom(self) -> float:
        """Where the horizontal axis is."""
        return HEIGHT - BOTTOM

    @property
    def right(self) -> float:
        """Where the horizontal axis ends."""
        return WIDTH - RIGHT


def chart(
    title: str, lines: Sequence[Line], *, x_label: str = "epoch", from_zero: bool = False, most: int = MOST_POINTS
) -> Drawn | None:
    """Lay lines out, each of so many points at most; None where they have no point."""
    kept = [line for line in lines if any(_is_number(y) for _, y in line.points)]
    if not kept:
        return None
    ys = [y for line in kept for _, y in line.points if y is not None and math.isfinite(y)]
    xs = [x for line in kept for x, _ in line.points]
    logarithmic = min(ys) > 0 and max(ys) > HUGE * sorted(ys)[len(ys) // 2] and not from_zero
    low, high, y_values = _scale([0.0, *ys] if from_zero else ys, logarithmic)
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    texts = [short(value) for value in y_values]
    drawn = Drawn(title, _told(title, kept), x_label, left=max(map(len, texts)) * LETTER + 10)

    def place_x(x: float) -> float:
        return round(drawn.left + (x - x_low) / (x_high - x_low) * (drawn.right - drawn.left), 1)

    def place_y(y: float) -> float:
        at = (math.log(y / low) / math.log(high / low)) if logarithmic else (y - low) / (high - low)
        return round(drawn.bottom - at * (drawn.bottom - TOP), 1)

    drawn.y_ticks = [(place_y(value), text) for value, text in zip(y_values, texts, strict=True)]
    x_values = [
        value for value in _round_values(x_low, x_high, 6, whole=x_high - x_low >= 2) if x_low <= value <= x_high
    ]
    drawn.x_ticks = [(place_x(value), short(value)) for value in x_values]
    for line in kept:
        placed = [(place_x(x), place_y(y) if _is_number(y) else None) for x, y in thinned(line.points, most=most)]  # type: ignore[arg-type]
        marks = placed if (line.marked and len(placed) <= FEW) or len(placed) == 1 else []
        drawn.lines.append(
            {
                "label": line.label,
                "look": line.look,
                "told": line.told,
                "path": _path(placed),
                "marks": [point for point in marks if point[1] is not None],
            }
        )
    return drawn


def thinned(points: Sequence[Point], *, most: int) -> list[Point]:
    """So many points at most: of each stretch the least and the greatest, in their order, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    found: list[Point] = []
    size = -(-len(points) // (most // 2))
    for first in range(0, len(points), size):
        stretch = range(first, min(first + size, len(points)))
        known = [place for place in stretch if _is_number(points[place][1])]
        chosen = {min(known, key=lambda p: points[p][1]), max(known, key=lambda p: points[p][1])} if known else {first}  # type: ignore[arg-type, return-value]
        found += [points[place] for place in sorted(chosen)]
    return found


def short(value: float) -> str:
    """A tick's text: 0.25, 12k, 1e-05."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M" if abs(value) < 1e9 else f"{value:.0e}"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:.6g}"


def _scale(values: Sequence[float], logarithmic: bool) -> tuple[float, float, list[float]]:
    """The ends of an axis and the values of its ticks."""
    low, high = min(values), max(values)
    if logarithmic:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        step = max(1, math.ceil((last - first) / 5))
        return 10.0**first, 10.0**last, [10.0**power for power in range(first, last + 1, step)]
    if high == low:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    ticks = _round_values(low, high, 5)
    return min(low, ticks[0]), max(high, ticks[-1]), ticks


def _round_values(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, or of a `whole` number, that span an interval."""
    rough = max((high - low) / most, float(whole))
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.999 * rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def _path(points: Iterable[tuple[float, float | None]]) -> str:
    """The way of a pen, which is lifted at a gap."""
    commands, down = [], False
    for x, y in points:
        if y is not None:
            commands.append(f"{'L' if down else 'M'}{x:g} {y:g}")
        down = y is not None
    return "".join(commands)


def _told(title: str, lines: Sequence[Line]) -> str:
    """A chart in words, for those who hear the page."""
    parts = []
    for line in lines:
        values = [y for _, y in line.points if y is not None and math.isfinite(y)]
        if line.told:
            parts.append(f"{line.label} from {values[0]:.4g} to {values[-1]:.4g}")
    return f"{title}: {'; '.join(parts)}"


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
