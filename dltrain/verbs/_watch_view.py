"""What `dltrain watch` shows of a run: its state, the last numbers and the curves."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import NoneType
from typing import Any, Protocol

import yaml
from rich.console import Console
from rich.text import Text

from dltrain.report.canvas import Curve
from dltrain.report.terminal import panel
from dltrain.run import listing
from dltrain.run.console import number
from dltrain.run.folder import RunError, read_json
from dltrain.run.record import FILE, Row, measures, read_rows
from dltrain.verbs._listed import aligned, name_of, printable

STYLES = {"train": ("blue", ""), "val": ("red", "o"), "test": ("green", "x")}
STATUS_STYLES = {"running": "bold cyan", "completed": "bold green"}
MEASURES = ("loss", "accuracy", "perplexity")
SIDE_BY_SIDE, GAP, LOWEST, MOST_CURVES = 100, 3, 6, 2
OLD_SECONDS = 10
RECENT = 5  # train rows, whose rate is that of the rest


class View(Protocol):
    """A picture of a run or a sweep."""

    @property
    def over(self) -> bool:
        """Whether it is the last."""
        ...

    def lines(self, *, width: int, height: int) -> list[Text]:
        """So many lines at most, none longer than the width."""
        ...


def read(folder: Path) -> View:
    """What there is to show. Raises RunError, and FileNotFoundError where the folder is gone."""
    if (folder / "sweep.jsonl").is_file():
        from dltrain.verbs._watch_sweep import SweepView

        return SweepView(listing.read_sweep(folder))
    folder.stat()
    run = listing.read_run(folder, printable(name_of(folder)))
    if run.reason:
        folder.stat()
        raise RunError(f"{folder}: {run.reason}")
    rows = [row for row in read_rows(folder) if _is_row(row)]
    return RunView(run, rows, settings(folder), read_json(folder / "summary.json") or {})


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and {"split", "step", "epoch"} <= row.keys()
        and all(isinstance(value, (int, float, NoneType)) for key, value in row.items() if key != "split")
    )


def settings(folder: Path) -> dict[str, Any]:
    """The configuration of a run, and its epochs."""
    try:
        found: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
        return {"epochs": int(found["trainer"]["epochs"]), **found}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder / 'config.yaml'} is damaged") from error


@dataclass
class RunView:
    """A run, its rows, its settings and, when it has ended, its summary."""

    run: listing.Run
    rows: Sequence[Row]
    config: dict[str, Any]
    summary: dict[str, Any]

    @property
    def over(self) -> bool:
        """Whether no process is at work on it."""
        return self.run.status != "running"

    def lines(self, *, width: int, height: int) -> list[Text]:
        """The state in some lines, and the curves in the rest."""
        above = [*_packed(self._state(), width), *(self._numbers() if self.rows else [Text(self._nothing())])]
        for line in above:
            line.truncate(width)
        return [*above[:height], *self._curves(width, height - len(above))]

    def _state(self) -> list[Text]:
        status = self.run.status
        parts = [*self._progress(), *self._expectation()] if self.rows else []
        if status == "unfinished":
            parts += ["its process is gone", "dltrain resume goes on"]
        elif self.summary.get("cause"):
            parts.append(printable(str(self.summary["cause"])))
        first = [Text(self.run.name, style="bold"), Text(status, style=STATUS_STYLES.get(status, "bold yellow"))]
        return [*first, *map(Text, parts)]

    def _nothing(self) -> str:
        return "there are no rows" if self.over else "waiting for the first row"

    def _progress(self) -> list[str]:
        last = self.rows[-1]
        done = [f"epoch {last['epoch']:.2f}/{self.config['epochs']}", f"step {last['step']:,}"]
        rate = self._rate()
        return [*done, f"{rate:,.0f} examples/s"] if rate and not self.over else done

    def _rate(self) -> float | None:
        """Examples a second, of late."""
        known = [row["images_per_second"] for row in self.rows if row.get("images_per_second")]
        return median(known[-RECENT:]) if known else None

    def _expectation(self) -> list[str]:
        """How long the rest takes, evaluations and checkpoints apart, and the age of news that are old."""
        if self.over:
            return []
        last, rate, parts = self.rows[-1], self._rate(), []
        if rate and 0 < last["epoch"] < self.config["epochs"]:
            steps = last["step"] / last["epoch"] * (self.config["epochs"] - last["epoch"])
            parts.append(f"about {spell(steps * self.config['data']['batch_size'] / rate)} left")
        age = time.time() - (self.run.folder / FILE).stat().st_mtime
        return [*parts, f"last row {spell(age)} ago"] if age > OLD_SECONDS else parts

    def _numbers(self) -> list[Text]:
        """The last row of each split, and the best value."""
        last = {row["split"]: row for row in self.rows}
        names = list(dict.fromkeys(name for row in last.values() for name in measures(row)))
        rows = [
            [printable(str(split)), f"{row['step']:,}", *(number(row.get(name)) for name in names)]
            for split, row in last.items()
        ]
        columns = {"": "left", "step": "right", **{printable(name): "right" for name in names}}
        head, *lines = aligned(columns, rows)
        texts = [Text(head, style="bold"), *map(Text, lines)]
        best = self._best()
        return [*texts, Text(best)] if best else texts

    def _best(self) -> str:
        """The best value of what the run is watched by."""
        split, _, name = str(self.config["trainer"].get("monitor")).partition("_")
        known = [row for row in self.rows if row["split"] == split and row.get(name) is not None]
        if not known:
            return ""
        best = (min if name == "loss" else max)(known, key=lambda row: row[name])
        return f"best {split} {name} {number(best[name])} at step {best['step']:,}"

    def _curves(self, width: int, height: int) -> list[Text]:
        """The loss and what else is measured, side by side or one above the other, as far as there is room."""
        names = [name for name in MEASURES if any(row.get(name) is not None for row in self.rows)][:MOST_CURVES]
        if not names or height < LOWEST - 1:
            return []
        if len(names) > 1 and width >= SIDE_BY_SIDE:
            half = (width - GAP) // 2
            left, right = (self._panel(name, half, height) for name in names)
            return [_beside(each, other, half + GAP) for each, other in zip(left, right, strict=True)]
        fit = names[: max(1, height // LOWEST)]
        return [line for name in fit for line in self._panel(name, width, height // len(fit))]

    def _panel(self, name: str, width: int, height: int) -> list[Text]:
        curves = []
        for split, (style, mark) in STYLES.items():
            rows = [row for row in self.rows if row["split"] == split]
            if split == "train":  # at the end of an epoch stands the mean of it all
                rows = [row for row in rows if not float(row["epoch"]).is_integer()] or rows
            if rows:
                curves.append(Curve(split, [(row["step"], row.get(name)) for row in rows], style, mark))
        return panel(name, curves, width=width, height=height)


def _packed(parts: Sequence[Text], width: int) -> list[Text]:
    """The parts side by side, in as many lines as they need; one that needs several lines begins a line."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 2 + part.cell_len <= width:
            lines[-1] = Text().append_text(lines[-1]).append("  ").append_text(part)
        else:
            lines += part.wrap(Console(width=width), width)
    return lines


def _beside(left: Text, right: Text, place: int) -> Text:
    return Text().append_text(left).append(" " * (place - left.cell_len)).append_text(right)


def spell(seconds: float) -> str:
    """A time in its two largest units."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
