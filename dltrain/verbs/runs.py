"""List runs and sweeps, or delete some: `dltrain runs ['model==mlp and val_accuracy>0.9'] [--sort KEY] [--prune]`."""

import argparse
import difflib
import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from dltrain.config.errors import ConfigError, UsageError
from dltrain.run import listing
from dltrain.run.filter import Filter, read
from dltrain.run.listing import Run, Sweep
from dltrain.verbs._listed import aligned, outputs_of, printable

SIDES = {
    "name": "left", "status": "left", "jobs": "right", "model": "left", "optim": "left", "epochs": "right",
    "val accuracy": "right", "test accuracy": "right", "seconds": "right", "when": "left",
}  # fmt: skip
GROUPS = ("model", "optim")
Line = dict[str, str]
LEAST = ("seconds", "epochs", "when", "optim", "jobs", "model")  # of the columns, the least important first


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--sort KEY` (`=-KEY` the largest first), `--jobs` of every sweep, `--json`; `--prune`, in earnest `--yes`."""
    parser.add_argument("--sort", metavar="KEY", help="one list in the order of KEY; =-KEY has the largest first")
    for flag, words in {
        "--json": "for programs",
        "--jobs": "those of every sweep, too",
        "--prune": "what the filter means would be deleted",
        "--yes": "delete it",
    }.items():
        parser.add_argument(flag, action="store_true", help=words)


def main(words: list[str], flags: argparse.Namespace) -> int:
    """List the runs that the filter means, the newest last; or delete them."""
    words, outputs = outputs_of(words)
    chosen = read(" ".join(words)) if words else None
    if flags.prune and (chosen is None or flags.json):
        raise UsageError("--prune takes a filter that says which, such as 'status==failed', and no --json")
    if flags.yes and not flags.prune:
        raise UsageError("--yes goes with --prune")
    runs, sweeps = listing.read(outputs)
    everything = [*runs, *(each for sweep in sweeps for each in (sweep.as_run(), *sweep.jobs))]
    meant = {run.folder for run in _meant(everything, chosen, flags.sort)}
    runs = [run for run in runs if run.folder in meant]
    jobs = {sweep.name: [job for job in sweep.jobs if job.folder in meant] for sweep in sweeps}
    chosen_sweeps = [sweep for sweep in sweeps if jobs[sweep.name] or sweep.folder in meant]
    if flags.prune:
        from dltrain.verbs._prune import prune

        return prune(outputs, runs, chosen_sweeps, jobs, yes=flags.yes)
    sweeps = chosen_sweeps if chosen else sweeps
    every = [*runs, *(job for some in jobs.values() for job in some)]
    if flags.json:
        _print_json(_sorted(every, flags.sort) if flags.sort else every, sweeps)
    elif not runs and not sweeps:
        print(f"nothing in {outputs} matches" if everything else f"no runs in {outputs}")
    elif flags.sort:
        _show(_sorted(every, flags.sort))
    else:
        _show(_grouped(runs, sweeps, jobs if chosen or flags.jobs else {}))
    return 0


def _meant(runs: Sequence[Run], chosen: Filter | None, sort: str | None) -> list[Run]:
    """The runs that a filter means. Raises ConfigError for a name that no run has."""
    names = [*(chosen.names if chosen else ()), *([sort.removeprefix("-")] if sort else [])]
    known = {*listing.COLUMNS, *(key for run in runs for key in run.values)}
    if runs and not known.issuperset(names):
        _add_settings(runs)
        known |= {key for run in runs for key in run.values}
        for name in names:
            if name not in known:
                raise ConfigError(f"unknown name {name}: {_nearest(name, known)}")
    return [run for run in runs if chosen is None or chosen.matches(run.values, known)]


def _add_settings(runs: Sequence[Run]) -> None:
    """Read the whole configuration of each run, which takes longer."""
    from dltrain.config.plain import settings

    for run in runs:
        if run.values["status"] not in (None, "broken", "waiting"):
            try:
                run.values = {**settings(run.folder / "config.yaml"), **run.values}
            except ConfigError as error:
                run.broke(str(error))


def _nearest(name: str, known: set[str]) -> str:
    same = sorted(key for key in known if key.endswith(f".{name}"))
    near = same if 0 < len(same) <= 3 else difflib.get_close_matches(name, sorted(known), n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(listing.COLUMNS)}, optim.lr, ..."


def _sorted(runs: Sequence[Run], sort: str) -> list[Run]:
    """All runs and jobs in one order; those that lack the key come first."""
    key = sort.removeprefix("-")
    having = [run for run in runs if isinstance(run.values.get(key), int | float | str)]
    lacking = [run for run in runs if not isinstance(run.values.get(key), int | float | str)]

    def order(run: Run) -> tuple[bool, Any]:
        value = run.values[key]
        return isinstance(value, str), value

    return [*lacking, *sorted(having, key=order, reverse=sort.startswith("-"))]


def _grouped(runs: Sequence[Run], sweeps: Sequence[Sweep], jobs: dict[str, list[Run]]) -> list[Run | Sweep]:
    """Runs and sweeps, the newest last; below a sweep the jobs that are asked for."""
    both: list[Run | Sweep] = sorted([*runs, *sweeps], key=lambda each: each.modified)
    below = {each.folder: jobs.get(each.name, []) for each in sweeps}
    return [line for each in both for line in (each, *below.get(each.folder, ()))]


def _line(run: Run) -> Line:
    values = run.values
    texts = {name: values[name] for name in ("name", "status", "model", "optim") if values.get(name)}
    return {
        **{name: str(value) for name, value in texts.items()},
        "epochs": _number(values.get("epochs"), ",.5g"),
        "val accuracy": _result(values, "val"),
        "test accuracy": _result(values, "test"),
        "seconds": _number(values.get("seconds"), ",.1f"),
        "when": str(values.get("when") or "")[:16],
    }


def _sweep_line(sweep: Sweep) -> Line:
    when = max((str(job.values.get("when") or "") for job in sweep.jobs), default="")[:16]
    jobs = f"{sweep.completed} of {len(sweep.jobs)}"
    kinds = {group: sorted({str(job.values[group]) for job in sweep.jobs if job.values.get(group)}) for group in GROUPS}
    shown = {group: ",".join(names) if len(names) <= 3 else f"{len(names)} kinds" for group, names in kinds.items()}
    return {"name": sweep.name, "status": sweep.status, "jobs": jobs, **shown, "when": when}


def _result(values: dict[str, Any], split: str) -> str:
    """The accuracy, or the loss where there is none."""
    accuracy, loss = (_number(values.get(f"{split}_{metric}"), ".4f") for metric in ("accuracy", "loss"))
    return accuracy or (loss and f"loss {loss}")


def _number(value: Any, form: str) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return format(value, form) if is_number else ""


def fitted(columns: dict[str, str], lines: Sequence[Line], *, width: int | None) -> list[str]:
    """The lines of a table, without the columns that matter least where a terminal is too narrow for all."""
    shown = dict(columns)
    for least in ("", *LEAST):
        shown.pop(least, None)
        made = aligned(shown, [[line.get(name) or "-" for name in shown] for line in lines])
        if width is None or max(map(len, made)) <= width:
            break
    return made


def _show(found: Sequence[Run | Sweep]) -> None:
    """A table, and why what is broken is so."""
    lines = [_line(each) if isinstance(each, Run) else _sweep_line(each) for each in found]
    columns = {name: side for name, side in SIDES.items() if name != "jobs" or any("jobs" in line for line in lines)}
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n".join(fitted(columns, lines, width=width)))
    for each in found:
        if each.reason:
            print(printable(f"{each.name}: {each.reason}"))


def _print_json(runs: Sequence[Run], sweeps: Sequence[Sweep]) -> None:
    known = [
        {**_facts(each), "jobs": len(each.jobs), "completed": each.completed, "status": each.status} for each in sweeps
    ]
    content = {"runs": [{**run.values, **_facts(run)} for run in runs], "sweeps": known}
    print(json.dumps(content, indent=2, default=str))


def _facts(each: Run | Sweep) -> dict[str, Any]:
    return {"name": each.name, "folder": str(each.folder), "reason": each.reason or None}
