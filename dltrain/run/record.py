"""metrics.jsonl: one row a line, append-only, the truth about a run."""

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
FILE = "metrics.jsonl"


class Record:
    """Appends rows to a run folder's record; each is on disk's way before `add` returns."""

    def __init__(self, folder: Path) -> None:
        self.file = (folder / FILE).open("a")

    def add(self, row: Row) -> None:
        """Append a row. A NaN or Inf in it is an error of ours: rows hold null."""
        self.file.write(json.dumps(row, allow_nan=False) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file; adding is over."""
        self.file.close()


def read_rows(folder: Path) -> list[Row]:
    """The rows of a run folder; a last line that a kill cut short is left out."""
    path = folder / FILE
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
