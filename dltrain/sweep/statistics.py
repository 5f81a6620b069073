"""Whether a difference between two settings is more than the luck of their seeds: Student's t and Holm's correction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

LEVEL = 0.05
FEWEST = 3  # two differences have a spread that means nothing
EQUAL = 1e-12  # of the numbers compared: what rounding alone makes of differences that are the same


@dataclass(frozen=True)
class Comparison:
    """The mean of `n` paired differences, its 95 % interval and its two-sided p; None where nothing can be said."""

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def paired(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """The paired t test of first minus second (Student 1908); no test below 3 pairs, or of differences all the same."""
    differences = [one - other for one, other in zip(first, second, strict=True)]
    n = len(differences)
    if n == 0:
        return Comparison(n)
    mean, spread = sum(differences) / n, deviation(differences)
    largest = max(abs(value) for value in (*first, *second))
    if n < FEWEST or spread is None or spread <= EQUAL * largest:
        return Comparison(n, mean)
    error = spread / math.sqrt(n)
    half = quantile(1 - LEVEL / 2, n - 1) * error
    return Comparison(n, mean, mean - half, mean + half, 1 - within(abs(mean) / error, n - 1))


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None below two values."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def within(t: float, freedom: int) -> float:
    """The probability that Student's t is between -t and t (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    assert freedom >= 1
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for factor in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * (factor - 1) / factor
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


@cache
def quantile(probability: float, freedom: int) -> float:
    """The t that Student's t stays below with a probability of at least a half, by bisection."""
    assert 0.5 <= probability < 1
    low, high = 0.0, 1.0
    while (1 + within(high, freedom)) / 2 < probability:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        if (1 + within(middle, freedom)) / 2 < probability:
            low = middle
        else:
            high = middle
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given: below 0.05 all together err in 5 % of families at most (Holm 1979)."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - place) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted
