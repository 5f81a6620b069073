"""What a person sees while a run goes on; all of it also stands in train.log."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table
from tqdm import tqdm

from dltrain.run.record import measures

Row = dict[str, Any]
LOG_WIDTH, PIPE_WIDTH = 110, 160
STALE_SECONDS = 0.5
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Console:
    """Prints to the terminal and to a run's log; a bar on a terminal, a quiet line an epoch everywhere."""

    def __init__(self, log: Path | None = None) -> None:
        # What is no terminal has no edge: lines are as long as they are.
        width = None if sys.stdout.isatty() else PIPE_WIDTH
        self.terminal = Terminal(highlight=False, soft_wrap=width is not None, width=width)
        self.file = Log(log) if log else None
        self.log = RichConsole(file=self.file, width=LOG_WIDTH, highlight=False) if log else None  # type: ignore[arg-type]
        self.bar: tqdm | None = None
        self.told = 0.0
        self.noun = "images"  # what examples are called

    @property
    def waits_for_news(self) -> bool:
        """Whether there is a bar whose numbers are old."""
        return self.bar is not None and time.monotonic() - self.told > STALE_SECONDS

    def say(self, what: Any = "") -> None:
        """Print a text or a table."""
        if self.bar is not None:
            self.bar.clear()
        try:
            self.terminal.print(what, markup=False)
        except BrokenPipeError:  # as versions of rich before 13.9 pass it on
            self.terminal.on_broken_pipe()
        self.note(what)

    def note(self, what: Any) -> None:
        """Print a text to the log alone."""
        if self.log is not None and self.file is not None:
            self.log.print(what, markup=False)
            self.file.flush()

    def start(self, *, steps: int, done: int = 0) -> None:
        """Draw the bar, where there is a terminal to draw it on."""
        if sys.stderr.isatty():
            self.bar = tqdm(total=steps, initial=done, dynamic_ncols=True, leave=False, bar_format=BAR)

    def step(self) -> None:
        """A step was taken."""
        if self.bar is not None:
            self.bar.update()

    def row(self, row: Row) -> None:
        """Show a train row beside the bar."""
        if self.bar is not None:
            self.told = time.monotonic()
            self.bar.set_postfix_str(f"{_numbers(row)}, {self._rate(row)}", refresh=False)

    def epoch(self, rows: Sequence[Row], *, epochs: int) -> None:
        """The line of an epoch: its train row and its evaluations."""
        parts = [f"{row['split']} {_numbers(row)}" for row in rows]
        rates = [self._rate(row) for row in rows if row["split"] == "train"]
        self.say(f"epoch {round(rows[-1]['epoch'])}/{epochs}  " + "  ".join([*parts, *rates]))

    def results(self, summary: Row, folder: Path) -> None:
        """The table that ends a run, and where everything is."""
        best = summary["best"]
        tested = "best" if best and best["step"] < summary["steps"] and not summary["watched_test"] else "last"
        splits = {split: summary[split] for split in ("train", "val", "test") if summary[split]}
        if self.noun == "steps" and "val" in splits:
            del splits["train"]  # the mean of a path is no place on it
        measured: Row = next(iter(splits.values()), {})
        names = [name for name in measured if any(row[name] is not None for row in splits.values())]
        rows = [
            [split, *(number(row[name]) for name in names), tested if split == "test" else "last"]
            for split, row in splits.items()
        ]
        columns = {"split": "left", **dict.fromkeys(names, "right"), "weights": "left"}
        self.say(table(f"\nResult: {summary['status']}", columns, rows))
        if summary["cause"]:
            self.say(summary["cause"])
        if best:
            self.say(f"best {best['split']} {best['metric']} {number(best['value'])} at step {best['step']}")
        execution = "" if summary["execution"] == "eager" else f", {summary['execution']}"
        several = f", {summary['ranks']} ranks" if summary["ranks"] > 1 else ""
        where = f"{summary['device']}, {summary['precision']}{execution}{several}"
        self.say(f"{summary['steps']} steps in {summary['seconds']:.1f} s, {where}")
        if summary["epochs"] > 1:
            self.say(f"pace    {summary['seconds'] / summary['epochs']:.3g} s an epoch")
        self._throughput(summary)
        for picture in ("curves", "path"):
            if (folder / f"{picture}.png").is_file():
                self.say(f"{picture:<8}{folder / picture}.png")
        if (folder / "report.html").is_file():
            self.say(f"report  {folder / 'report.html'}")
        self.say(f"folder  {folder}")
        if summary["status"] == "interrupted":
            self.say(f"to go on: dltrain resume {folder}")

    def _throughput(self, summary: Row) -> None:
        """How fast it went, how it began, how much memory it took, and what held it up."""
        if summary["images_per_second"] is not None:
            flops = quantity(summary["flops_per_second"], "FLOP/s")
            waiting = f"{100 * summary['waiting_for_data']:.0f} % waiting for data"
            self.say(f"speed   {summary['images_per_second']:,.0f} {self.noun}/s, {flops}, {waiting}")
        started = summary["seconds_to_first_step"]
        start = "" if started is None else f", first step after {started:.1f} s"
        self.say(f"memory  {quantity(summary['peak_memory_bytes'], 'B')} at most{start}")
        if summary["bottleneck"] is not None:
            self.say(f"bottleneck: {summary['bottleneck']}")

    def _rate(self, row: Row) -> str:
        return f"{row['images_per_second']:,.0f} {self.noun}/s"

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def close(self) -> None:
        """Close the log."""
        self.stop()
        if self.file is not None:
            self.file.close()


class Terminal(RichConsole):
    """A terminal that may be closed, as after `| head`: training goes on without a word."""

    def on_broken_pipe(self) -> None:
        """Print to nowhere from now on."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Log:
    """A text file to append to; what a full disk does not take waits until there is room."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)
        self.waiting = b""

    def write(self, text: str) -> int:
        """Append a text, when `flush` comes to it."""
        self.waiting += text.encode()
        return len(text)

    def flush(self) -> None:
        """Write what waits, as far as there is room: for want of it no training ends."""
        with contextlib.suppress(OSError):
            while self.waiting:
                self.waiting = self.waiting[self.file.write(self.waiting) :]

    def close(self) -> None:
        """Write what waits, and close the file."""
        self.flush()
        self.file.close()


def table(title: str, columns: Mapping[str, str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of texts; `columns` gives each heading its justification."""
    result = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for heading, justification in columns.items():
        result.add_column(heading, justify=justification, no_wrap=justification == "right", overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        result.add_row(*row)
    return result


def number(value: float | None, digits: int = 4) -> str:
    """A figure of a table; a dash where there is none."""
    if value is None:
        return "-"
    tiny = 0 < abs(value) < 10**-digits
    return f"{value:.{digits}g}" if tiny or abs(value) >= 1e6 else f"{value:.{digits}f}"


def quantity(value: float, unit: str) -> str:
    """A quantity in three digits: 21.9 GFLOP/s."""
    size, prefix = next((pair for pair in PREFIXES if value >= pair[0]), PREFIXES[-1])
    scaled = value / size
    return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {prefix}{unit}"


def _numbers(row: Row) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in measures(row).items())


@contextmanager
def download_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes, to be told (done, total)."""
    with tqdm(unit="B", unit_scale=True, disable=not sys.stderr.isatty(), leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
