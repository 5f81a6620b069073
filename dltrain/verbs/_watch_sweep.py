"""What `dltrain watch` shows of a sweep: a line a job."""

from rich.text import Text

from dltrain.run.console import number
from dltrain.run.folder import RunError
from dltrain.run.listing import RESULTS, Run, Sweep
from dltrain.run.record import Row, last_row
from dltrain.verbs._listed import aligned, printable

COLUMNS = {"job": "left", "status": "left", "epoch": "right", "": "left", "value": "right"}
FIRST = ("running", "failed", "diverged", "broken", "unfinished", "interrupted")


class SweepView:
    """A sweep's jobs: those under way first, then those in trouble, then the others, the newest first."""

    def __init__(self, sweep: Sweep) -> None:
        if sweep.reason:
            raise RunError(f"{sweep.folder}: {sweep.reason}")
        self.sweep = sweep
        self.over = sweep.status != "running"

    def lines(self, *, width: int, height: int) -> list[Text]:
        """The state in a line, and as many jobs as have room."""
        sweep = self.sweep
        head = f"{printable(sweep.name)}  {sweep.status}  {sweep.completed} of {len(sweep.jobs)} completed"
        order = {status: place for place, status in enumerate(FIRST)}
        newest = sweep.jobs[::-1]
        jobs = sorted(newest, key=lambda job: order.get(job.status, len(FIRST)))
        room = height - 2
        shown = jobs if len(jobs) <= room else jobs[: max(0, room - 1)]
        lines = [head, *aligned(COLUMNS, [_cells(job) for job in shown])]
        if len(shown) < len(jobs):
            lines.append(f"and {len(jobs) - len(shown)} more: dltrain runs --jobs")
        return [Text(line[:width], style="bold" if place < 2 else "") for place, line in enumerate(lines)]


def _cells(job: Run) -> list[str]:
    row = _last(job)
    known = next((name for name in RESULTS if isinstance(job.values.get(name), float)), None)
    if known:
        return [job.name, job.status, number(row.get("epoch"), 2), known.replace("_", " "), number(job.values[known])]
    name = "accuracy" if row.get("accuracy") is not None else "loss"
    what = f"{row['split']} {name}" if row else ""
    return [job.name, job.status, number(row.get("epoch"), 2), what, number(row.get(name))]


def _last(job: Run) -> Row:
    """The newest row, where there is one to be read."""
    try:
        return last_row(job.folder) or {}
    except (OSError, ValueError):
        return {}
