"""What ends a sweep: sweep.csv, the ranked table, what can be believed of it, and the picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from dltrain.report.sweep_picture import draw_sweep
from dltrain.run.console import Console, number, table
from dltrain.sweep.statistics import deviation
from dltrain.sweep.summary import (
    RESULTS,
    Group,
    Row,
    Verdict,
    against_the_best,
    grouped,
    ranked,
    ranking,
    table_rows,
    write_csv,
)

MOST_CAUSES, ANY_WIDTH = 20, 10_000
MORE_SEEDS = "add seed=1,2,3"
Cells = tuple[str, dict[str, str], list[list[str]]]
BESIDE = "the best minus it, 95 % interval"


def sum_up(
    console: Console, folder: Path, rows: Sequence[Row], *, repeat: Callable[[int], str] = lambda job: MORE_SEEDS
) -> None:
    """Write sweep.csv, sweep.png and sweep.svg into a sweep's folder, replacing earlier ones, and print the table.

    `repeat` says how to have more seeds, where the best job is the one of a number.
    """
    column = ranking(rows)
    groups = ranked(grouped(rows), column)
    lines = table_rows(groups)
    write_csv(folder / "sweep.csv", lines)
    several = have_seeds(groups)
    for each in _tables_of_groups(groups, column, console) if several else [table(*jobs_table(lines, column))]:
        console.say(each)
    for line in causes(lines):
        console.say(line)
    if several:
        for line in how_to_read(against_the_best(groups, column)):
            console.say(line)
    elif len(groups) > 1:
        console.say(f"one seed proves little: {repeat(groups[0].rows[0]['job'])}")
    pictures = draw_sweep({group.setting: group.rows for group in groups}, folder, column=column)
    console.say(f"table    {folder / 'sweep.csv'}")
    if pictures:
        console.say(f"picture  {pictures[0]}")


def have_seeds(groups: Sequence[Group]) -> bool:
    """Whether a setting was run with several seeds."""
    return any(len({row["settings"].get("seed") for row in group.rows}) > 1 for group in groups)


def _title(rows: Sequence[Row], column: str) -> str:
    completed = sum(row["status"] == "completed" for row in rows)
    if not completed:
        return "\nNo job completed"
    some = "" if completed == len(rows) else f", {completed} of {len(rows)} jobs completed"
    by = f"Ranked by {_heading(column)}" if column else "Not ranked, as nothing was validated (data.val_size)"
    return f"\n{by}{some}"


def _heading(column: str) -> str:
    return column.replace("_", " ")


def jobs_table(rows: Sequence[Row], column: str) -> Cells:
    """Title, headings and cells of the table of jobs."""
    headings = {"rank": "right", "setting": "left", "status": "left"}
    wanted = dict.fromkeys([*([column] if column else []), *RESULTS[:4]])
    shown = [name for name in wanted if any(row[name] is not None for row in rows)][:3]
    cells = [
        [str(row["rank"] or "-"), row["setting"], row["status"], *(number(row[name]) for name in shown)] for row in rows
    ]
    return _title(rows, column), headings | {_heading(name): "right" for name in shown}, cells


def _tables_of_groups(groups: Sequence[Group], column: str, console: Console) -> list[Table]:
    """The settings and how the best compares with each; in two tables where the terminal is too narrow for one."""
    title, headings, cells = groups_table(groups, column)
    if BESIDE not in headings:
        return [table(title, headings, cells)]
    whole = table(title, headings, cells)
    terminal = console.terminal
    wanted = terminal.measure(whole, options=terminal.options.update(width=ANY_WIDTH)).maximum
    if not terminal.is_terminal or wanted <= terminal.width:
        return [whole]
    narrow = {heading: side for heading, side in headings.items() if heading != BESIDE}
    compared = [[cell[0], cell[-1]] for cell in cells[1:] if cell[-1]]
    return [
        table(title, narrow, [cell[:-1] for cell in cells]),
        table("", {"rank": "right", BESIDE: "left"}, compared),
    ]


def groups_table(groups: Sequence[Group], column: str) -> Cells:
    """Title, headings and cells of the table of groups, the best beside each other one where they can be compared."""
    title, headings, cells = _settings(groups, column)
    verdicts = against_the_best(groups, column)
    if not verdicts:
        return title, headings, cells
    beside = ["the best", *map(_against, verdicts)]
    padded = [*beside, *[""] * (len(groups) - len(beside))]
    return title, headings | {BESIDE: "left"}, [[*cell, text] for cell, text in zip(cells, padded, strict=True)]


def _settings(groups: Sequence[Group], column: str) -> Cells:
    """Title, headings and cells without the comparison."""
    rows = [row for group in groups for row in group.rows]
    wanted = [column, column.replace("val", "test")] if column else RESULTS[2:]
    shown = [name for name in wanted if any(group.values(name) for group in groups)]
    headings = {"rank": "right", "setting": "left", "seeds": "right", **{_heading(name): "right" for name in shown}}
    cells = [
        [str(group.rank or "-"), group.setting, _seeds(group), *(_spread(group, name) for name in shown)]
        for group in groups
    ]
    return _title(rows, column) + (", mean ± standard deviation over seeds" if shown else ""), headings, cells


def _seeds(group: Group) -> str:
    """How many completed, and of how many where those are not all."""
    completed = sum(row["status"] == "completed" for row in group.rows)
    return str(completed) if completed == len(group.rows) else f"{completed} of {len(group.rows)}"


def _spread(group: Group, column: str) -> str:
    """Mean and sample standard deviation over the seeds."""
    values = list(group.values(column).values())
    if not values:
        return "-"
    spread = deviation(values)
    return number(fmean(values)) + ("" if spread is None else f" ± {number(spread)}")


def _against(verdict: Verdict) -> str:
    comparison, p = verdict.comparison, verdict.p
    if comparison.low is None or comparison.high is None or p is None:
        return verdict.words
    interval = f"{_signed(comparison.mean)} [{_signed(comparison.low)}, {_signed(comparison.high)}]"
    return f"{interval} {verdict.words}, {'p < 0.0001' if p < 0.0001 else f'p = {number(p)}'}"


def _signed(value: Any) -> str:
    return f"+{number(value)}" if value >= 0 else number(value)


def causes(rows: Sequence[Row]) -> list[str]:
    """Why jobs did not complete, apart from those that a search gave up on purpose; a line each."""
    failed = [(row["setting"], row["cause"]) for row in rows if row["cause"] and row["status"] != "pruned"]
    told = [cause if cause.startswith(f"{setting}:") else f"{setting}: {cause}" for setting, cause in failed]
    more = [f"... and {len(told) - MOST_CAUSES} more, named in sweep.csv"] if len(told) > MOST_CAUSES else []
    return [*told[:MOST_CAUSES], *more]


def how_to_read(verdicts: Sequence[Verdict]) -> list[str]:
    """What the figures of the table of groups are, and where they say less than they seem to; a line each."""
    tested = sum(verdict.p is not None for verdict in verdicts)
    lines = []
    if tested:
        correction = f", p is Holm's over these {tested} pairs" if tested > 1 else ""
        lines.append(f"the best against each other: paired t on the seeds both completed{correction}")
    if tested > 1:
        lines.append("the best was picked by these same numbers, which favours it: confirm a close call with new seeds")
    return lines
