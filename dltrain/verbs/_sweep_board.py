"""What a person sees of a sweep: a line a job that ended, and on a terminal a line a job under way."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from rich.live import Live

from dltrain.run.console import Console, number, table
from dltrain.run.record import last_row

REFRESH_SECONDS = 0.5
COLUMNS = {
    "job": "right",
    "setting": "left",
    "epoch": "right",
    "loss": "right",
    "accuracy": "right",
    "seconds": "right",
}


class Board:
    """Shows jobs under way while it is open; `label(job)` names one."""

    def __init__(self, console: Console, label: Callable[[Any], str]) -> None:
        self.console, self.label = console, label
        self.live = Live(console=console.terminal, auto_refresh=False, transient=True)
        self.shows = console.terminal.is_terminal
        self.looked = 0.0

    def __enter__(self) -> "Board":
        if self.shows:
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def look(self, running: Sequence[Any]) -> None:
        """See what the jobs are doing; a few times a second is often enough."""
        if not self.shows or time.monotonic() - self.looked < REFRESH_SECONDS:
            return
        self.looked = time.monotonic()
        rows = [self._line(each) for each in sorted(running, key=lambda each: int(each.job.number))]
        self.live.update(table("", COLUMNS, rows), refresh=True)

    def _line(self, each: Any) -> list[str]:
        row = last_row(each.job.run_folder) or {}
        epochs = each.job.composition.config.trainer.epochs
        return [
            str(each.job.number),
            self.label(each.job) + (f" ({each.stopped})" if each.stopped else ""),
            f"{row['epoch']:.2f}/{epochs}" if row else "-",
            number(row.get("loss")),
            number(row.get("accuracy")),
            f"{time.monotonic() - each.started:.0f}",
        ]
