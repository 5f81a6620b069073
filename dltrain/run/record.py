"""metrics.jsonl: one row a line, append-only, the truth about a run."""

import json
from pathlib import Path
from typing import Any

from dltrain.run.folder import writing

Row = dict[str, Any]
FILE = "metrics.jsonl"


class Record:
    """Appends rows to a run folder's record; each is on disk's way before `add` returns."""

    def __init__(self, folder: Path) -> None:
        """Raises WriteError. A last line that a kill cut short is cut off, so that the next row has its own."""
        self.path = folder / FILE
        with writing(self.path):
            self.file = self.path.open("a+b")
            self.file.seek(0)
            self.file.truncate(self.file.read().rfind(b"\n") + 1)

    def add(self, row: Row) -> None:
        """Append a row. A NaN or Inf in it is an error of ours: rows hold null. Raises WriteError."""
        line = json.dumps(row, allow_nan=False) + "\n"
        with writing(self.path):
            self.file.write(line.encode())
            self.file.flush()

    def close(self) -> None:
        """Close the file; adding is over."""
        self.file.close()


def read_rows(folder: Path) -> list[Row]:
    """The rows of a run folder; a last line that a kill cut short is left out."""
    path = folder / FILE
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
