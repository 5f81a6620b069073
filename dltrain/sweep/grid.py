"""Expanding overrides with several values into jobs."""

from collections.abc import Sequence
from itertools import product

from hydra.core.override_parser.types import Glob

from dltrain.config.compose import parse
from dltrain.config.errors import ConfigError


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of the values, the last override varying fastest; each job is a list of overrides."""
    values: list[list[str]] = []
    for text in overrides:
        word = parse(text)
        if not word.is_sweep_override():
            values.append([text])
        elif isinstance(word.value(), Glob):
            raise ConfigError(f"{text}: glob is not offered: name the choices")
        elif not word.is_discrete_sweep():
            raise ConfigError(
                f"{text}: an interval has no list of values; name them, use range or choice, or hydra/sweeper=optuna"
            )
        else:
            values.append([f"{word.get_key_element()}={value}" for value in word.sweep_string_iterator()])
    return [list(job) for job in product(*values)]


def settings(jobs: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """What tells a job from the others: the keys that not all jobs share with one value, and the job's values."""
    values = [dict(word.lstrip("+").split("=", 1) for word in job) for job in jobs]
    keys = list(dict.fromkeys(key for job in values for key in job))
    varying = [key for key in keys if len({job.get(key) for job in values}) > 1]
    return [{key: job[key] for key in varying if key in job} for job in values]
