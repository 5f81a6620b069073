"""What verbs that list things share: where outputs are, and lines of columns."""

import re
from collections.abc import Sequence
from pathlib import Path

OUTPUTS = re.compile(r"outputs_dir=(?!=)")


def outputs_of(words: Sequence[str]) -> tuple[list[str], Path]:
    """The words without `outputs_dir=PATH`, and that path."""
    where = [word.partition("=")[2] for word in words if OUTPUTS.match(word)]
    return [word for word in words if not OUTPUTS.match(word)], Path(where[-1] if where else "outputs")


def name_of(folder: Path) -> str:
    """A run folder's name; of a sweep's job SWEEP/NUMBER."""
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}" if (folder.parent / "sweep.jsonl").is_file() else folder.name


def aligned(columns: dict[str, str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns under their headings, each `left` or `right`; rich takes a second for a thousand rows."""
    cells = [[printable(cell) for cell in row] for row in [[*columns], *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    pads = [str.rjust if side == "right" else str.ljust for side in columns.values()]
    return [
        "  ".join(pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)).rstrip()
        for row in cells
    ]


def printable(text: str) -> str:
    """A text without what would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
