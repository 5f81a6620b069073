"""metrics.jsonl: one row a line, append-only, the truth about a run."""

import json
import os
from pathlib import Path
from typing import Any

from dltrain.run import faults
from dltrain.run.folder import RunError, WriteError, writing

Row = dict[str, Any]
FILE = "metrics.jsonl"
BOOKKEEPING = ("split", "step", "epoch", "lr", "images_per_second", "nonfinite_steps")


class Record:
    """Appends rows to a run folder's record; each is on its way to the disk before `add` returns.

    What cannot be written, on a full disk, waits in memory and goes first the next time; `failure` says why.
    """

    def __init__(self, folder: Path, *, keep: int | None = None) -> None:
        """Go on after the first `keep` bytes, dropping the rest; by default after the last whole line.

        Raises WriteError, and RunError (66) where there are fewer bytes than that.
        """
        self.path = folder / FILE
        self.waiting = b""
        self.failure: WriteError | None = None
        with writing(self.path):
            self.file = self.path.open("a+b", buffering=0)
            self.file.seek(0)
            lines = self.file.read()
            self.length = lines.rfind(b"\n") + 1 if keep is None else keep
            if self.length > len(lines):
                self.file.close()
                raise RunError(f"{self.path} is shorter than the {keep} bytes that the checkpoint knows of")
            self.file.truncate(self.length)

    def add(self, row: Row) -> None:
        """Append a row. A NaN or Inf in it is an error of ours: rows hold null."""
        self.waiting += (json.dumps(row, allow_nan=False) + "\n").encode()
        try:
            self.write()
        except WriteError as error:
            self.failure = error

    def write(self) -> None:
        """Write what waits. Raises WriteError, leaving no part of a line."""
        faults.reach("row")
        with writing(self.path, needed=len(self.waiting)):
            try:
                while self.waiting:
                    written = self.file.write(self.waiting)
                    self.length, self.waiting = self.length + written, self.waiting[written:]
            except OSError:
                self._take_back_part_of_a_line()
                raise
        self.failure = None

    def rewind(self, length: int) -> None:
        """Drop every row after the first `length` bytes. Raises WriteError."""
        self.waiting = b""
        with writing(self.path):
            self.file.truncate(length)
        self.length = length

    def sync(self) -> None:
        """Have every row on the disk itself. Raises WriteError."""
        self.write()
        with writing(self.path):
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file; adding is over."""
        self.file.close()

    def _take_back_part_of_a_line(self) -> None:
        whole = self.path.read_bytes()[: self.length].rfind(b"\n") + 1
        self.file.seek(whole)
        self.waiting = self.file.read(self.length - whole) + self.waiting
        self.file.truncate(whole)
        self.length = whole


def measures(row: Row) -> Row:
    """What a row measures, by name: the loss, and the accuracy or whatever else the data have."""
    return {name: value for name, value in row.items() if name not in BOOKKEEPING}


def whole_lines(folder: Path) -> int:
    """The bytes of a run folder's record up to the end of its last whole line."""
    path = folder / FILE
    return path.read_bytes().rfind(b"\n") + 1 if path.is_file() else 0


def last_row(folder: Path) -> Row | None:
    """The newest row of a run that may be under way; None where there is none yet."""
    path = folder / FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().rpartition(b"\n")[0].splitlines()
    row: Row | None = json.loads(lines[-1]) if lines else None
    return row


def read_rows(folder: Path) -> list[Row]:
    """The rows of a run folder; a last line that a kill cut short is left out. Raises RunError (66)."""
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from error
