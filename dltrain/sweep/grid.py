"""Expanding overrides with several values into jobs."""

from collections.abc import Sequence
from itertools import product

from dltrain.config.compose import parse
from dltrain.config.errors import ConfigError


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of the values, the last override varying fastest; each job is a list of overrides."""
    values: list[list[str]] = []
    for text in overrides:
        word = parse(text)
        if not word.is_sweep_override():
            values.append([text])
        elif not word.is_discrete_sweep():
            raise ConfigError(f"{text}: an interval has no list of values; name them, or use range or choice")
        else:
            values.append([f"{word.get_key_element()}={value}" for value in word.sweep_string_iterator()])
    return [list(job) for job in product(*values)]


def varying(jobs: Sequence[Sequence[str]]) -> list[str]:
    """A label a job: the overrides that not all jobs share."""
    shared = set(jobs[0]).intersection(*map(set, jobs))
    return [" ".join(word for word in job if word not in shared) or "all" for job in jobs]
