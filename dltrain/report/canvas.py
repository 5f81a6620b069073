"""Curves in characters: braille dots for lines, a letter for each single point."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.text import Text

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # a braille character's, by row and column
BLANK, HUGE = 0x2800, 1e300
Point = tuple[float, float | None]


@dataclass(frozen=True)
class Curve:
    """Points in the order of x, gaps where y is None or not finite; joined by a line unless `mark` stands at each."""

    name: str
    points: Sequence[Point]
    style: str
    mark: str = ""

    def parts(self) -> list[list[tuple[float, float]]]:
        """The points between the gaps."""
        parts: list[list[tuple[float, float]]] = [[]]
        for x, y in self.points:
            if y is None or not abs(y) < HUGE:
                parts.append([])
            else:
                parts[-1].append((x, y))
        return [part for part in parts if part]


class Canvas:
    """Characters to draw on; x and y are bounds."""

    def __init__(self, width: int, height: int, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.width, self.height, self.x, self.y = max(1, width), height, x, y
        self.cells = [[BLANK] * self.width for _ in range(height)]
        self.styles: dict[tuple[int, int], str] = {}
        self.marks: dict[tuple[int, int], str] = {}

    def draw(self, curve: Curve) -> None:
        """Draw a curve over what is there."""
        for part in curve.parts():
            dots = [self._dot(*point) for point in part]
            for column, row in dots if curve.mark else _joined(dots):
                cell = (row // 4, column // 2)
                self.styles[cell] = curve.style
                if curve.mark:
                    self.marks[cell] = curve.mark
                else:
                    self.cells[cell[0]][cell[1]] |= DOTS[row % 4][column % 2]

    def lines(self) -> Iterable[Text]:
        """The characters, row by row."""
        for row, cells in enumerate(self.cells):
            line = Text()
            for column, cell in enumerate(cells):
                letter = self.marks.get((row, column)) or (" " if cell == BLANK else chr(cell))
                line.append(letter, style=self.styles.get((row, column)))
            yield line

    def _dot(self, x: float, y: float) -> tuple[int, int]:
        return place(x, *self.x, 2 * self.width - 1), place(y, self.y[1], self.y[0], 4 * self.height - 1)


def _joined(dots: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Dots and those between them."""
    yield dots[0]
    for (left, top), (right, bottom) in pairwise(dots):
        count = max(abs(right - left), abs(bottom - top))
        for number in range(1, count + 1):
            yield left + round((right - left) * number / count), top + round((bottom - top) * number / count)


def place(value: float, start: float, end: float, last: int) -> int:
    """Where a value stands among the places 0 to `last`."""
    return round((value - start) / (end - start) * last)
