"""Composing the jobs of a sweep, also where a preset asks for it; for a thousand jobs that takes a while."""

import os
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dltrain.config.compose import Composition, compose_all, parse
from dltrain.config.errors import ConfigError, UsageError
from dltrain.config.meant import meant_words, stray
from dltrain.run.console import Console

SILENT_SECONDS, FEW = 1.0, 20


def started() -> list[str]:
    """The override that tells how many ranks torchrun has started, where it has."""
    return [f"device.count={os.environ['WORLD_SIZE']}"] if "RANK" in os.environ and "WORLD_SIZE" in os.environ else []


def compose_jobs(jobs: Sequence[Sequence[str]], **where: Any) -> list[Composition | ConfigError]:
    """As `compose_all`, saying so where it takes longer than a second."""
    return compose_all(_followed(jobs, Console()), **where)


def _followed(jobs: Sequence[Sequence[str]], console: Console) -> Iterator[Sequence[str]]:
    """The jobs, with a bar on a terminal and a line elsewhere once many have taken long."""
    started, said, words = time.monotonic(), False, f"composing {len(jobs)} jobs"
    bar = Progress(TextColumn(words), BarColumn(), MofNCompleteColumn(), console=console.terminal, transient=True)
    task = bar.add_task(words, total=len(jobs))
    try:
        for number, job in enumerate(jobs):
            yield job
            if not said and time.monotonic() - started > SILENT_SECONDS and len(jobs) - number > FEW:
                said = True
                bar.start() if console.terminal.is_terminal else console.say(words)
            bar.update(task, completed=number + 1)
    finally:
        if bar.live.is_started:
            bar.stop()


def check_form(words: Sequence[str]) -> None:
    """Refuse words that are no overrides, saying what they were meant to be. Raises UsageError."""
    if (place := stray(words)) is not None:
        from dltrain.verbs.completion import known_keys

        meant = meant_words(words, place, known_keys())
        example = f", one word, quoted where it has blanks: {shlex.quote(meant)}" if meant else ""
        raise UsageError(f"cannot read {words[place]!r}: an override has the form key=value{example}")


def check_shared(words: Iterable[str]) -> None:
    """Refuse several values of what all jobs have in common."""
    for word in words:
        key = parse(word).key_or_group
        if parse(word).is_sweep_override() and (key in ("name", "outputs_dir") or key.startswith("sweep.")):
            raise ConfigError(f"{word}: that is one for all jobs of a sweep")


def asking(composition: Composition) -> str:
    """Who asks for a sweep or a search that the command line does not tell of."""
    preset = composition.choices.get("experiment")
    return f"experiment={preset}" if preset else "the configuration"


def say_asked(asked: dict[str, Sequence[str]]) -> None:
    """Say which values come from presets."""
    for preset, words in asked.items():
        print(f"{preset} asks for {' '.join(words)}")
