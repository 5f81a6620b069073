"""Train a network: what `dltrain` does without a verb."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain.config.compose import Composition, compose, parse, shown
from dltrain.config.errors import ConfigError, UsageError
from dltrain.config.hydra_cli import ask
from dltrain.sweep.grid import expand
from dltrain.verbs._composing import asking, check_form, check_shared, compose_jobs, say_asked, started


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Hydra's flags, in any place among the overrides."""
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--run", "-r", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    parser.add_argument("--config-name", "-cn", default="config")
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--experimental-rerun")
    parser.add_argument("--shell-completion", "-sc")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Train, sweep, or show the composed configuration."""
    if flags.shell_completion:
        from dltrain.verbs.completion import main as completion

        return completion([flags.shell_completion, *words], flags)
    if flags.config_path or flags.experimental_rerun:
        raise UsageError("--config-path and --experimental-rerun are not offered: use --config-dir, or dltrain resume")
    if flags.hydra_help:
        return ask(flags.arguments)
    check_form(words)
    words = [*started(), *words]
    if flags.multirun and not words and flags.config_name == "config":
        raise UsageError("-m is for several values, as in dltrain -m model=lenet,mlp")
    where = {
        "config_name": flags.config_name,
        "config_dirs": flags.config_dir,
        "directory": str(Path.cwd()),
    }
    if flags.multirun and not (flags.info or flags.cfg):
        return run_sweep(words, **where)
    composition = compose(expand(words)[0] if flags.multirun else words, **where)
    if flags.info or flags.cfg in ("hydra", "all"):
        return ask(flags.arguments)
    if flags.cfg:
        print(shown(composition.config, flags.package), end="")
        for note in composition.notes:
            print(f"note: {note}", file=sys.stderr)
        return 0
    if composition.sweep:
        raise ConfigError(f"{asking(composition)} is a sweep of {' '.join(composition.sweep)}: add -m")
    from dltrain.verbs._launch import run_ranks
    from dltrain.verbs._start import train

    config = composition.config
    return run_ranks(composition, train, parent=Path(config.outputs_dir) / "runs", name=config.name)


def run_sweep(
    words: list[str],
    *,
    folder: Path | None = None,
    more: Sequence[list[str]] = (),
    allow_changes: bool = False,
    **where: Any,
) -> int:
    """Run what the words with several values ask for: every combination, or what optuna chooses.

    With a folder, go on with the sweep in it, also with `more` jobs that it has.
    """
    check_shared(words)
    if _searches(words, where):
        from dltrain.verbs._sweep_search import search

        return search(words, folder=folder, allow_changes=allow_changes, **where)
    jobs, compositions = _grid(words, where)
    from dltrain.verbs._sweep_start import sweep

    jobs, compositions = [*jobs, *more], [*compositions, *compose_jobs(more, **where)]
    return sweep(jobs, compositions, folder=folder, allow_changes=allow_changes, words=words, **where)


def _grid(words: list[str], where: dict[str, Any]) -> tuple[list[list[str]], list[Composition | ConfigError]]:
    """Every combination of the values of the command line, and of a preset's that it does not give."""
    if not (jobs := expand(words)):
        raise ConfigError("there is nothing to run: one of the ranges is empty")
    compositions = compose_jobs(jobs, **where)
    accepted = [each for each in compositions if isinstance(each, Composition)]
    searching = next((each for each in accepted if each.config.sweep.search == "optuna"), None)
    if searching:
        raise ConfigError(
            f"{asking(searching)} is a search with optuna, which takes one experiment: give it alone, "
            "or make it a grid with hydra/sweeper=grid"
        )
    asked = [each.sweep if isinstance(each, Composition) else () for each in compositions]
    if any(asked):
        check_shared(word for words in asked for word in words)
        jobs = [wider for swept, job in zip(asked, jobs, strict=True) for wider in expand([*swept, *job])]
        compositions = compose_jobs(jobs, **where)
        say_asked({asking(each): each.sweep for each in accepted if each.sweep})
    return jobs, compositions


def _searches(words: list[str], where: dict[str, Any]) -> bool:
    """Whether optuna is to choose the values, by the command line or a preset."""
    telling = [word for word in words if parse(word).key_or_group in ("sweep.search", "experiment")]
    single = [word for word in telling if not parse(word).is_sweep_override()]
    return bool(compose(single, **where).config.sweep.search == "optuna")
