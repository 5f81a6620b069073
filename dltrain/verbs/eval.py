"""Measure a run: `dltrain eval RUN [--split test|val|train] [--checkpoint best|last|STEP] [--data KEY=VALUE...]`."""

import argparse
import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dltrain.config.errors import UsageError
from dltrain.verbs._listed import outputs_of

NOT_FINITE = 65


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Which examples, which weights, other data, another device."""
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="which part of the data")
    parser.add_argument("--checkpoint", default="best", help="best, last or the number of a step")
    parser.add_argument(
        "--data", nargs="+", action="extend", default=[], help="data=NAME and data.KEY=VALUE of other data"
    )
    parser.add_argument("--device", help="cpu, cuda or mps")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Show what a run is worth on a split, and write it beside the run. The run may be under way."""
    data = [word for word in flags.data if "=" in word]
    names, outputs = outputs_of([*words, *(word for word in flags.data if "=" not in word)])
    if stray := [name for name in names if name.startswith("data") and "=" in name]:
        raise UsageError(f"{stray[0]}: other data are given as --data {' '.join(stray)}")
    if len(names) != 1:
        raise UsageError("dltrain eval takes one run, a path or a name, such as dltrain eval first --split val")
    if flags.checkpoint not in ("best", "last") and not flags.checkpoint.isdecimal():
        raise UsageError(f"--checkpoint {flags.checkpoint}: it is best, last or the number of a step")

    from dltrain.run.folder import RunError, WriteError, find

    folder = find(names[0], outputs)  # before torch is imported

    from dltrain.verbs._evaluation import prepare, score
    from dltrain.verbs._evaluation_content import content, table
    from dltrain.verbs._evaluation_table import show

    trial = prepare(folder, split=flags.split, which=flags.checkpoint, data=data, device=flags.device)
    try:
        outcome = score(trial)
        if not outcome.is_finite:
            told = f"the weights of step {trial.step} lead to outputs that are not finite"
            raise RunError(told, exit_code=NOT_FINITE)
        found = content(trial, outcome, looks=_looks(folder, trial))
    finally:
        for batches in trial.run.batches.values():
            batches.close()
    failure, written = None, list[Path]()
    try:
        written = _write(folder, trial, flags.checkpoint, found, table(trial, outcome))
    except WriteError as error:
        failure = WriteError(f"the evaluation is not kept: {error}")
    show(found, folder.resolve().name)
    if failure:
        raise failure
    for path in [*written, *_page_drawn_anew(folder)]:
        print(f"wrote  {path}")
    return 0


def _page_drawn_anew(folder: Path) -> list[Path]:
    """The run's page where it has one, which shows what was known before."""
    if not (folder / "report.html").is_file():
        return []
    from dltrain.report.run_page import draw_page

    return [draw_page(folder)]


def _looks(folder: Path, trial: Any) -> dict[str, int] | None:
    """How often the run's own test set was looked at, this time included."""
    from dltrain.run import looks

    if trial.split != "test" or not trial.own_data:
        return None
    before = looks.count(folder)
    return {**before, "after": before["after"] + 1}


def _write(folder: Path, trial: Any, which: str, found: dict[str, Any], table: Iterable[list[Any]]) -> list[Path]:
    """Remember a look at the test set, then write both files. Raises WriteError.

    What is not of the run's best weights and own data does not take the place of what is.
    """
    from dltrain.run import looks
    from dltrain.run.folder import replacing, write_json

    if found["looks"]:
        looks.add(folder, by="eval", split="test", step=trial.step, data_fingerprint=trial.run.data_fingerprint)
    other = [] if trial.own_data else [trial.run.data_fingerprint[:8]]
    end = "-".join([trial.split, *([which] if which != "best" else []), *other])
    files = [folder / f"evaluation-{end}.json", folder / f"predictions-{end}.csv"]
    with (
        replacing(files[1]) as draft,
        draft.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,  # folders' names are bytes
    ):
        csv.writer(file, lineterminator="\n").writerows(table)
    write_json(files[0], found)
    return files
