"""How far to go along a direction. Source: Nocedal and Wright, Numerical Optimization, 2006, chapter 3.

`loss` and `slope` are those at distance 0; losses count as equal within `slack`, which rounding needs near a minimum.
"""

from collections.abc import Callable
from typing import NamedTuple

ENOUGH = 1e-4  # of the decrease that the slope promises
FLAT = 0.1  # of the first slope, which is what conjugate gradients want
MOST_TRIALS = 40


class Trial(NamedTuple):
    """A distance, with the loss and the slope there."""

    distance: float
    loss: float
    slope: float


def armijo(loss_at: Callable[[float], float], loss: float, slope: float, *, first: float, slack: float = 0.0) -> float:
    """The first distance, of `first` and its halves, at which the loss has fallen enough (equation 3.4); or 0."""
    distance = first
    for _ in range(MOST_TRIALS):
        if loss_at(distance) <= loss + ENOUGH * distance * slope + slack:
            return distance
        distance /= 2
    return 0.0


def strong_wolfe(
    trial_at: Callable[[float], Trial], loss: float, slope: float, *, first: float, slack: float = 0.0
) -> float:
    """A distance at which the loss has fallen enough and the slope is flat enough (algorithms 3.5 and 3.6).

    Where none is found, the lowest of those tried, or 0.
    """
    low, high, distance = Trial(0.0, loss, slope), None, first
    for _ in range(MOST_TRIALS):
        trial = trial_at(distance)
        fell = trial.loss <= loss + ENOUGH * distance * slope + slack and trial.loss <= low.loss + slack
        if fell and abs(trial.slope) <= -FLAT * slope:
            return distance
        if not fell:
            high = trial
        else:
            if trial.slope * (high.distance - low.distance if high else 1.0) >= 0:
                high = low
            low = trial
        distance = _between(low, high) if high else 2 * distance
    return low.distance


def _between(low: Trial, high: Trial) -> float:
    """Where the slope would be 0 if it were linear between both; their middle where that is at an end or outside."""
    width, turn = high.distance - low.distance, high.slope - low.slope
    share = -low.slope / turn if turn else 0.5
    return low.distance + width * (share if 0.05 <= share <= 0.95 else 0.5)
