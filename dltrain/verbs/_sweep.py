"""A sweep: every combination in a process and a folder of its own, then a ranked table."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.report.overlay import draw_overlay
from dltrain.run.console import Console, number, table
from dltrain.run.folder import create
from dltrain.run.signals import Interrupted
from dltrain.sweep.grid import varying
from dltrain.sweep.launcher import Launcher
from dltrain.sweep.summary import RESULTS, Row, rank, result, write_csv

SOME_FAILED, INTERRUPTED = 3, (130, 143)


def run_job(composition: Composition, folder: Path, name: str) -> int:
    """Train one job, in a process of its own."""
    from dltrain.verbs._start import train

    return train(composition, parent=folder, name=name)


def sweep(jobs: Sequence[Sequence[str]], compositions: Sequence[Composition]) -> int:
    """Run all jobs, given by their overrides and composed, one after another; 3 where not every one completed."""
    config = compositions[0].config

    def list_jobs(draft: Path) -> None:
        lines = [json.dumps({"job": place, "overrides": list(job)}) + "\n" for place, job in enumerate(jobs)]
        (draft / "sweep.jsonl").write_text("".join(lines))

    name = config.name or time.strftime("%Y%m%d-%H%M%S")
    try:
        folder = create(Path(config.outputs_dir) / "sweeps", name, list_jobs, numbered=config.name is None)
    except FileExistsError as error:
        raise ConfigError(f"name={name}: {error} is there already; choose another name") from error
    console, launcher = Console(), Launcher()
    labels, rows, ended_by = varying(jobs), [], 0
    console.say(f"{len(jobs)} jobs in {folder}")
    try:
        for place, (composition, label) in enumerate(zip(compositions, labels, strict=True)):
            outcome = launcher.run(run_job, composition, folder, str(place))
            row = result(folder / str(place), job=place, setting=label, cause=outcome.words if outcome.code else "")
            if outcome.code in INTERRUPTED:
                row["status"], ended_by = "interrupted", outcome.code
            rows.append(row)
            console.say(f"{place + 1}/{len(jobs)}  {label}  {row['status']}  {_outcome(row)}")
            if ended_by:
                break
    except (KeyboardInterrupt, Interrupted) as stop:  # between two jobs
        ended_by = getattr(stop, "exit_code", INTERRUPTED[0])
    _sum_up(console, folder, rows)
    if ended_by:
        return ended_by
    return 0 if all(row["status"] == "completed" and not row["cause"] for row in rows) else SOME_FAILED


def _outcome(row: Row) -> str:
    if row["cause"]:
        return str(row["cause"])
    column = next(name for name in RESULTS if row[name] is not None)
    return f"{column.replace('_', ' ')} {number(row[column])}, {row['seconds']:.1f} s"


def _sum_up(console: Console, folder: Path, rows: Sequence[Row]) -> None:
    ranked, column = rank(rows)
    write_csv(folder / "sweep.csv", ranked)
    pictures = draw_overlay({row["setting"]: folder / str(row["job"]) for row in ranked}, folder)
    columns = {"rank": "right", "setting": "left", "status": "left", "val accuracy": "right", "val loss": "right"}
    shown = ("val_accuracy", "val_loss", "test_accuracy")
    cells = [
        [str(row["rank"] or "-"), row["setting"], row["status"], *(number(row[name]) for name in shown)]
        for row in ranked
    ]
    title = f"\nRanked by {column.replace('_', ' ')}" if column else "\nNo job completed"
    console.say(table(title, {**columns, "test accuracy": "right"}, cells))
    for row in ranked:
        if row["cause"]:
            console.say(f"{row['setting']}: {row['cause']}")
    if len({row["setting"] for row in rows}) > 1 and not any("seed=" in row["setting"] for row in rows):
        console.say("one seed proves little: add seed=1,2,3")
    console.say(f"table    {folder / 'sweep.csv'}")
    if pictures:
        console.say(f"picture  {pictures[0]}")
