"""What is said of the differences between a sweep's settings: Student's t, Holm, and how often the verdicts err."""

import math
from functools import partial

import numpy as np
import pytest

from dltrain.sweep.statistics import Comparison, holm, paired, quantile, within
from dltrain.sweep.summary import Row, Verdict, against_the_best, grouped, label, ranked

# Abramowitz and Stegun, table 26.10, and the tables of any textbook: t below which it stays with this probability.
PUBLISHED = {
    (0.975, 1): 12.706205,
    (0.975, 2): 4.302653,
    (0.975, 3): 3.182446,
    (0.975, 4): 2.776445,
    (0.975, 5): 2.570582,
    (0.975, 10): 2.228139,
    (0.975, 30): 2.042272,
    (0.995, 2): 9.924843,
    (0.995, 9): 3.249836,
    (0.95, 7): 1.894579,
}


def row(job: int, value: float | None, column: str = "val_accuracy", status: str = "completed", **settings: str) -> Row:
    """A job's row as the ranking reads it."""
    return {"job": job, "settings": settings, "setting": label(settings), "status": status, column: value}


def verdicts(*settings: list[float], column: str = "val_accuracy") -> list[Verdict]:
    """What a sweep says whose settings came to these values, a seed each: by the way that a real one goes."""
    values = [(setting, seed, value) for setting, each in enumerate(settings) for seed, value in enumerate(each)]
    rows = [
        row(job, value, column, model=f"m{setting}", seed=str(seed))
        for job, (setting, seed, value) in enumerate(values)
    ]
    return against_the_best(ranked(grouped(rows), column), column)


def share_called_different(sweeps: np.ndarray) -> float:
    """Of simulated sweeps x settings x seeds, how many say that the best is better than any other."""
    called = [any("than it" in each.words for each in verdicts(*sweep.tolist())) for sweep in sweeps]
    return sum(called) / len(called)


def integrated(t: float, freedom: int) -> float:
    """The two-sided p of a t, by Simpson's rule over Student's density."""
    x, step = np.linspace(0, t, 200_001, retstep=True)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    density = scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2)
    return 1 - 2 * step / 3 * float(density[0] + density[-1] + 4 * density[1:-1:2].sum() + 2 * density[2:-1:2].sum())


@pytest.mark.parametrize(("probability", "freedom"), PUBLISHED)
def test_quantiles_are_the_published_ones(probability, freedom):
    assert quantile(probability, freedom) == pytest.approx(PUBLISHED[probability, freedom], abs=5e-7)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 29, 100])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 7.0])
def test_p_values_equal_the_integral_of_the_density(t, freedom):
    assert 1 - within(t, freedom) == pytest.approx(integrated(t, freedom) if t else 1.0, abs=1e-9)


def test_students_own_example():
    """Student 1908, section IX: hours of sleep that two drugs gained ten patients; t is 4.06, p 0.0028."""
    laevo = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    dextro = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    comparison = paired(laevo, dextro)
    assert comparison.n == 10
    assert comparison.mean == pytest.approx(1.58)
    assert (comparison.low, comparison.high) == (pytest.approx(0.7001142, abs=1e-6), pytest.approx(2.4598858, abs=1e-6))
    assert comparison.p == pytest.approx(0.0028329, abs=1e-6)


def test_the_interval_and_p_agree_and_turn_with_the_order():
    rng = np.random.default_rng(0)
    for n in (3, 4, 7, 12):
        first, second = rng.normal(0.01, 0.01, n).tolist(), rng.normal(0, 0.01, n).tolist()
        one, other = paired(first, second), paired(second, first)
        assert (one.low > 0 or one.high < 0) == (one.p < 0.05)
        assert (other.low, other.high, other.p) == (pytest.approx(-one.high), pytest.approx(-one.low), one.p)


def test_nothing_is_said_below_three_pairs_or_without_a_spread():
    assert paired([], []) == Comparison(0)
    assert paired([0.9, 0.8], [0.7, 0.9]).p is None
    same = paired([0.9, 0.4, 0.7], [0.8, 0.3, 0.6])  # differences of 0.1 but for rounding
    assert (same.n, same.mean, same.p) == (3, pytest.approx(0.1), None)
    assert paired([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]).p is None
    assert paired([0.5, 0.6, 0.7], [0.4, 0.5, 0.6001]).p is not None


def test_holm_steps_down():
    """Against the definition: the largest of (m - j + 1) p over the smaller p values."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_verdicts_in_words():
    words = partial(verdicts, [0.90, 0.91, 0.92])
    assert words([0.80, 0.82, 0.81])[0].words == "better than it at n = 3"
    assert words([0.88, 0.91, 0.91])[0].words == "not distinguishable at n = 3"
    assert words([0.80, 0.82])[0].words == "n = 2: no statement"
    assert words([0.89, 0.90, 0.91])[0].words == "the differences do not vary at n = 3: no test"
    assert verdicts([0.3, 0.31, 0.29], [0.5, 0.52, 0.52], column="val_loss")[0].words == "better than it at n = 3"


def test_seeds_are_paired_by_name_and_not_by_place():
    first = {"1": 0.90, "2": 0.80, "3": 0.70, "4": 0.99}
    second = {"3": 0.69, "1": 0.88, "2": 0.785}
    rows = [row(0, value, model="a", seed=seed) for seed, value in first.items()]
    rows += [row(1, value, model="b", seed=seed) for seed, value in second.items()]
    (verdict,) = against_the_best(ranked(grouped(rows), "val_accuracy"), "val_accuracy")
    assert verdict.comparison == paired([0.90, 0.80, 0.70], [0.88, 0.785, 0.69])
    rows = [row(0, 0.9, model="a", seed="1"), row(1, 0.8, model="b", seed="2")]
    assert against_the_best(ranked(grouped(rows), "val_accuracy"), "val_accuracy")[0].words.startswith("no seed in com")


def test_the_best_mean_that_loses_on_the_shared_seeds_is_said_to():
    rows = [row(0, value, model="a", seed=seed) for seed, value in {"1": 0.5, "2": 0.52, "3": 0.51, "4": 3.0}.items()]
    rows += [row(1, value, model="b", seed=seed) for seed, value in {"1": 0.7, "2": 0.71, "3": 0.715}.items()]
    (verdict,) = against_the_best(ranked(grouped(rows), "val_accuracy"), "val_accuracy")
    assert verdict.words == "worse than it at n = 3"


def test_p_is_corrected_for_the_pairs_shown():
    rng = np.random.default_rng(1)
    found = verdicts([0.95, 0.96, 0.94, 0.95], *rng.normal(0.9, 0.01, (4, 4)).tolist())
    assert [each.p for each in found] == holm([each.comparison.p for each in found])
    assert found[0].p != found[0].comparison.p


@pytest.mark.parametrize("n", [3, 5])
def test_two_equal_settings_are_called_different_in_one_sweep_of_twenty(n):
    seeds = np.random.default_rng(n).normal(0.9, 0.002, (2000, 1, n))  # a seed makes both better or worse
    sweeps = seeds + np.random.default_rng(10 + n).normal(0, 0.002, (2000, 2, n))
    assert 0.035 <= share_called_different(sweeps) <= 0.065


def test_a_gap_of_a_point_at_a_seed_noise_of_a_fifth_is_found_with_three_seeds():
    sweeps = np.random.default_rng(0).normal(0.9, 0.002, (2000, 2, 3))
    sweeps[:, 0] += 0.01
    assert share_called_different(sweeps) >= 0.8


@pytest.mark.parametrize(("settings", "most"), [(3, 0.08), (6, 0.11)])
def test_the_choice_of_the_best_costs_what_the_documentation_says(settings, most):
    """Picking the best by the numbers that it is then tested with is known to raise false alarms above 5 %."""
    sweeps = np.random.default_rng(settings).normal(0.9, 0.002, (1000, settings, 5))
    assert share_called_different(sweeps) <= most
