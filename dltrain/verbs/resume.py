"""Go on with an interrupted run or sweep, or train a finished run longer: `dltrain resume RUN [overrides]`."""

import argparse
from functools import partial
from pathlib import Path

from dltrain.config.errors import ConfigError, UsageError


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--allow-changes`: the rest of the run may differ from its first part, or lack rows that were lost."""
    parser.add_argument(
        "--allow-changes",
        action="store_true",
        help="the rest may differ from the first part, or lack rows that were lost",
    )


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Go on from the newest checkpoint that verifies."""
    runs = [word for word in words if "=" not in word]
    if len(runs) != 1:
        raise UsageError("dltrain resume takes one run, a path or a name, then overrides such as trainer.epochs=10")
    where = [word.partition("=")[2] for word in words if word.startswith("outputs_dir=")]
    overrides = [word for word in words if "=" in word and not word.startswith("outputs_dir=")]

    outputs = where[-1] if where else "outputs"

    from dltrain.sweep.ledger import find_sweep

    if (folder := find_sweep(runs[0], outputs)) is not None:
        return _go_on_with_sweep(folder, overrides, allow_changes=flags.allow_changes)

    from dltrain.config import stored
    from dltrain.run.folder import find
    from dltrain.verbs._composing import started

    folder = find(runs[0], outputs)
    composition = stored.read(folder / "config.yaml", [*started(), *overrides])
    from dltrain.verbs._launch import run_ranks
    from dltrain.verbs._start import go_on

    return run_ranks(composition, partial(go_on, folder), allow_changes=flags.allow_changes)


def _go_on_with_sweep(folder: Path, overrides: list[str], *, allow_changes: bool) -> int:
    """Run what has not finished of a sweep, by the command that began it."""
    from dltrain.sweep.ledger import Ledger
    from dltrain.verbs.train import run_sweep

    for word in overrides:
        if not word.startswith("sweep."):
            raise ConfigError(f"{word}: a sweep goes on with the jobs it has; only sweep.* may change")
    ledger = Ledger.read(folder)
    if ledger.listed:
        from dltrain.verbs._sweep_start import go_on_with

        return go_on_with(folder, overrides, allow_changes=allow_changes)
    command = {key: value for key, value in ledger.command.items() if key != "id"}
    words = [*command.pop("words"), *overrides]
    more = [[*job.overrides, *overrides] for job in ledger.jobs if job.trial is None]
    return run_sweep(words, folder=folder, more=more, allow_changes=allow_changes, **command)
