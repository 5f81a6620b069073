"""What writes nothing: for the ranks of a run that do as the first one does, which writes for all."""

from pathlib import Path
from typing import Any

from dltrain.run.console import Console
from dltrain.run.record import Record
from dltrain.run.saver import Saver


class SilentConsole(Console):
    """Prints nothing."""

    def say(self, what: Any = "") -> None:
        """Nothing."""

    def start(self, *, steps: int, done: int = 0) -> None:
        """No bar."""


class SilentRecord(Record):
    """Takes rows and writes none."""

    def __init__(self, folder: Path, *, keep: int | None = None) -> None:
        self.waiting, self.failure, self.length = b"", None, keep or 0

    def add(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def write(self) -> None:
        """Nothing."""

    def rewind(self, length: int) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class SilentSaver(Saver):
    """Is never due, and saves nothing."""

    def forget_after(self, step: int) -> None:
        """Nothing."""

    def due(self, *, step: int, epoch: float) -> bool:
        """Never: the first rank decides."""
        return False

    def save(self, step: int, *_: Any) -> bool:
        """Nothing was to be done."""
        return False

    def save_best(self, step: int, *_: Any) -> None:
        """Nothing."""
