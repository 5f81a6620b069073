"""Expanding overrides with several values into jobs."""

import re
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep

from dltrain.config.compose import parse
from dltrain.config.errors import ConfigError
from dltrain.sweep.ledger import of_the_run


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of the values, the last override varying fastest; each job is a list of overrides."""
    values: list[list[str]] = []
    for text in overrides:
        word = parse(text)
        if not word.is_sweep_override():
            values.append([text])
        elif not word.is_discrete_sweep():
            raise ConfigError(
                f"{text}: an interval has no list of values; name them, use range or choice, or hydra/sweeper=optuna"
            )
        else:
            values.append(_values(word))
    return [list(job) for job in product(*values)]


def samples(overrides: Sequence[str]) -> list[list[str]]:
    """Some of the jobs that a search may come to: among them every choice of each word, and all ends."""
    words = [(text, parse(text)) for text in overrides]
    values = [_ends(word) if word.is_sweep_override() else [text] for text, word in words]
    first, last = ([each[place] for each in values] for place in (0, -1))
    jobs = [[*first[:place], value, *first[place + 1 :]] for place, each in enumerate(values) for value in each[1:]]
    return [first, last, *jobs]


def _ends(word: Override) -> list[str]:
    """The values of an override, the ends where it is an interval or a range."""
    value: Any = word.value()
    if isinstance(value, IntervalSweep):
        return [f"{word.get_key_element()}={end}" for end in (value.start, value.end)]
    values = _values(word)
    return [values[0], values[-1]] if values and isinstance(value, RangeSweep) else values


def _values(word: Override) -> list[str]:
    if isinstance(word.value(), Glob):
        raise ConfigError(f"{word.input_line}: glob is not offered: name the choices")
    return [f"{word.get_key_element()}={value}" for value in word.sweep_string_iterator()]


def settings(
    jobs: Sequence[Sequence[str]], configured: Callable[[int, str], str | None] = lambda number, key: None
) -> list[dict[str, str]]:
    """What tells a job from the others: the keys that not all jobs share with one value, and the job's values.

    Where a job's words do not have a key, its value is what its configuration has: `configured(number, key)`.
    """
    known = [written(of_the_run(job)) for job in jobs]
    keys = [key for key in dict.fromkeys(key for job in known for key in job) if not _is_shared(known, key)]
    for number, job in enumerate(known):
        found = {key: configured(number, key) for key in keys if key not in job}
        job.update({key: value for key, value in found.items() if value is not None})
    varying = [key for key in keys if not _is_shared(known, key)]
    return [{key: job[key] for key in varying if key in job} for job in known]


def written(overrides: Sequence[str]) -> dict[str, str]:
    """The keys and values of a job's words, as they were written: Hydra escapes the braces of ${optim.lr}."""
    words = (re.sub(r"\\([{}])", r"\1", word.lstrip("+")) for word in overrides)
    return dict(word.split("=", 1) for word in words)


def _is_shared(known: Sequence[dict[str, str]], key: str) -> bool:
    return len({job.get(key) for job in known}) == 1
