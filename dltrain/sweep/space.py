"""What optuna chooses from, by Hydra's syntax of several values."""

import contextlib
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from dltrain.config.errors import ConfigError

ENDLESS = 10**9


def distribution(word: Override) -> Any:
    """What optuna chooses from, for an override with Hydra's interval, range, choice or a list of values.

    `int(interval(...))` are whole numbers, `tag(log,interval(...))` are spread evenly over their logarithms.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = word.value()
    with _worded(word.key_or_group):
        if isinstance(value, IntervalSweep):
            kind: Any = IntDistribution if isinstance(value.start, int) else FloatDistribution
            return kind(value.start, value.end, log="log" in value.tags)
        texts = [str(each) for each in word.sweep_string_iterator()]
        if not isinstance(value, RangeSweep) or len(texts) == 1:
            return CategoricalDistribution(texts)
        number = float if any("." in text or "e" in text for text in texts) else int
        kind = FloatDistribution if number is float else IntDistribution
        ends = sorted(map(number, (texts[0], texts[-1])))
        return kind(*ends, step=abs(number(value.step)))


@contextlib.contextmanager
def _worded(key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


def combinations(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of distributions. Raises ConfigError where one has no list of values."""
    for values in product(*(_values(key, each) for key, each in space.items())):
        yield dict(zip(space, values, strict=True))


def size(space: Mapping[str, Any]) -> int:
    """How many combinations there are; many where there is no end of them."""
    return prod(_size(each) for each in space.values())


def _values(key: str, each: Any) -> list[Any]:
    """All values of a distribution that has a list of them."""
    if hasattr(each, "choices"):
        return list(each.choices)
    if each.step is None or each.log:
        raise ConfigError(f"{key}: sweep.sampler=grid needs values or a range, not an interval")
    count = round((each.high - each.low) / each.step) + 1
    return [each.low + place * each.step for place in range(count)]


def _size(each: Any) -> int:
    """How many values a distribution has."""
    if hasattr(each, "choices"):
        return len(each.choices)
    return ENDLESS if each.step is None else round((each.high - each.low) / each.step) + 1
