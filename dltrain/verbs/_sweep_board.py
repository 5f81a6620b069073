"""What a person sees of a sweep: a line a job that ended, and on a terminal a line a job under way."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from rich.constrain import Constrain
from rich.live import Live

from dltrain.run.console import Console, number, table
from dltrain.run.record import last_row
from dltrain.sweep.slots import Slot
from dltrain.sweep.summary import RESULTS, Row

REFRESH_SECONDS = 0.5
ROOM_FOR_AN_ECHO = 3  # of ^C, which on a full line would begin another one and leave the heading behind
COLUMNS = {
    "job": "right",
    "setting": "left",
    "epoch": "right",
    "loss": "right",
    "accuracy": "right",
    "seconds": "right",
}


class Board:
    """Shows jobs under way while it is open; `label(job)` names one, `state()` is what stands above them."""

    def __init__(self, console: Console, label: Callable[[Any], str], state: Callable[[], str]) -> None:
        self.console, self.label, self.state = console, label, state
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
        shown = Constrain(table(self.state(), COLUMNS, rows), self.console.terminal.width - ROOM_FOR_AN_ECHO)
        self.live.update(shown if rows else "", refresh=True)

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


def at_a_time(places: Sequence[Slot]) -> str:
    """How many jobs run at a time, and on what."""
    if gpus := len(places[0].gpus):
        return f"{len(places)} at a time, each on {'a GPU' if gpus == 1 else f'{gpus} GPUs'}"
    threads = places[0].threads
    return f"{len(places)} at a time" + (f", {threads} thread{'s' if threads > 1 else ''} each" if threads else "")


def outcome_of(row: Row) -> str:
    """Why a job failed, or what it came to."""
    column = next((name for name in (row.get("chosen_by"), *RESULTS) if name and row[name] is not None), None)
    if row["cause"] or column is None:
        return str(row["cause"])
    return f"{column.replace('_', ' ')} {number(row[column])}, {row['seconds']:.1f} s"
