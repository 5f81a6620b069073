"""The page of a sweep: the tables of its end, and what its curves are drawn from."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from dltrain.config.compose import parse
from dltrain.report.sweep_page import Table, draw_page
from dltrain.run.console import number
from dltrain.sweep.grid import settings, written
from dltrain.sweep.ledger import Ledger
from dltrain.sweep.statistics import deviation
from dltrain.sweep.summary import RESULTS, Group, Row, against_the_best, grouped, ranked, ranking, result, table_rows
from dltrain.verbs._configured import Configurations
from dltrain.verbs._sweep_table import causes, groups_table, have_seeds, how_to_read, jobs_table


def try_page(folder: Path, rows: Sequence[Row]) -> str:
    """Write report.html of a sweep that has ended; where it is, or why it could not be written."""
    try:
        return f"report   {write_page(folder, rows)}"
    except Exception as error:  # the page shows what is there anyway: for want of it no sweep fails
        return f"note: no report.html: {' '.join(str(error).split()) or type(error).__name__}"


def write_page(folder: Path, rows: Sequence[Row], *, running: bool = False) -> Path:
    """Write report.html into a sweep's folder, from its jobs' rows. Raises WriteError."""
    column = ranking(rows)
    groups = ranked(grouped(rows), column)
    lines, several = table_rows(groups), have_seeds(groups)
    title, headings, cells = groups_table(groups, column) if several else jobs_table(lines, column)
    return draw_page(
        folder,
        column=column,
        running=running,
        leaderboard=Table(title.strip(), headings, cells),
        remarks=how_to_read(against_the_best(groups, column)) if several else [],
        causes=causes(lines),
        seeds=_seeds(groups, column) if several and column else None,
        jobs=lines,
        results=[name for name in RESULTS if any(row[name] is not None for row in lines)],
        groups={group.setting: group.rows for group in groups},
    )


def _seeds(groups: Sequence[Group], column: str) -> Table:
    """What the seeds of each setting came to."""
    cells = []
    for group in groups:
        values = list(group.values(column).values())
        if values:
            spread = deviation(values)
            figures = [fmean(values), spread, min(values), max(values)]
            cells.append([group.setting, str(len(values)), *map(number, figures)])
    names = ("seeds", "mean", "standard deviation", "lowest", "highest")
    return Table(f"{column.replace('_', ' ')} over seeds", {"setting": "left", **dict.fromkeys(names, "right")}, cells)


def rows_of(folder: Path) -> list[Row]:
    """A row a job of a sweep, read from its folder alone, also while it is under way. Raises RunError."""
    ledger = Ledger.read(folder, mend=False)
    configurations = Configurations(folder, {})
    told, _ = configurations.told_apart(_settings(ledger, configurations))
    return [
        result(folder / str(job.number), job=job.number, settings=each, status=job.status, cause=job.cause)
        for job, each in zip(ledger.jobs, told, strict=True)
    ]


def _settings(ledger: Ledger, configurations: Configurations) -> list[dict[str, str]]:
    """What the words of jobs tell them apart by; of a search, what it chose."""
    if all(job.trial is None for job in ledger.jobs):
        return settings([job.overrides for job in ledger.jobs], configurations.value)
    words: list[Any] = [parse(text) for text in ledger.command["words"]]
    keys = [word.key_or_group for word in words if word.is_sweep_override()]
    values = [written(job.overrides) for job in ledger.jobs]
    return [{key: each[key] for key in keys if key in each} for each in values]
