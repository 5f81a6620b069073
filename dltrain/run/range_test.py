"""What a learning-rate range test says: the record of steps whose rate grows, and the rate that it suggests.

Source: Smith, https://arxiv.org/abs/1506.01186, section 3.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

RUNAWAY = 4.0  # times the best smoothed loss, where a test ends
MEMORY = 0.7  # of the smoothed loss that tells this end
WIDTH = 0.15  # decades of the rate over which losses are smoothed
LEAST_FALL = 0.05  # of the loss at the start, below which nothing was learned
FEWEST = 8  # steps with a finite loss, of which something can be said
BACK = 3.0  # from the rate of the least smoothed loss to the one suggested


class Runaway:
    """Follows the losses of a test, step by step."""

    def __init__(self) -> None:
        self.average = self.weight = 0.0
        self.best = math.inf

    def over(self, loss: float | None) -> bool:
        """Whether the smoothed loss is far above its best, or this one is not finite."""
        if loss is None:
            return True
        self.average = MEMORY * self.average + (1 - MEMORY) * loss
        self.weight = MEMORY * self.weight + (1 - MEMORY)
        smoothed = self.average / self.weight
        self.best = min(self.best, smoothed)
        return smoothed > RUNAWAY * self.best


@dataclass(frozen=True)
class Verdict:
    """Rates and losses of the steps that were finite, and what they say; places are None where there are none."""

    rates: Array
    losses: Array
    smoothed: Array
    steepest: float | None
    least: float | None
    diverged: float | None
    suggestion: float | None
    reason: str


def judge(rows: Sequence[dict[str, Any]]) -> Verdict:
    """The verdict on the train rows of a test."""
    finite = [row for row in rows if row["loss"] is not None]
    rates, losses = (np.array([row[key] for row in finite], dtype=np.float64) for key in ("lr", "loss"))
    if len(finite) < FEWEST:
        rate = rows[-1]["lr"]
        why = f"the loss diverged within {len(rows)} steps, at {rate:.2g}: begin lower, as with --from {rate / 1e4:.0e}"
        return Verdict(rates, losses, losses, None, None, rate, None, why)
    smoothed = smooth(rates, losses)
    start, place = smoothed[0], int(smoothed.argmin())
    after = [rate for rate, value in zip(rates[place:], smoothed[place:], strict=True) if value > start]
    diverged = float(after[0]) if after else rows[-1]["lr"] if len(finite) < len(rows) else None
    noise = float(np.std((losses - smoothed)[: max(place, FEWEST)]))
    if start - smoothed[place] < max(LEAST_FALL * start, noise):
        return Verdict(rates, losses, smoothed, None, None, diverged, None, _nothing_learned(rates, smoothed, diverged))
    slopes = np.gradient(smoothed[: place + 1], np.log10(rates[: place + 1]))
    steepest, least = float(rates[int(slopes.argmin())]), float(rates[place])
    suggestion = float(f"{least / BACK:.1g}")
    reason = _reason(steepest, least, diverged, suggestion)
    return Verdict(rates, losses, smoothed, steepest, least, diverged, suggestion, reason)


def smooth(rates: Array, losses: Array) -> Array:
    """A Gaussian mean over WIDTH decades on both sides; what ran away counts as twice the start at most."""
    capped = np.minimum(losses, 2 * np.median(losses[:FEWEST]))
    places = np.log10(rates)
    weights = np.exp(-0.5 * ((places[:, None] - places) / WIDTH) ** 2)
    smoothed: Array = weights @ capped / weights.sum(1)
    return smoothed


def _nothing_learned(rates: Array, smoothed: Array, diverged: float | None) -> str:
    """Why there is no suggestion, though the losses were finite."""
    flat = f"the smoothed loss never fell by {LEAST_FALL:.0%} of the {smoothed[0]:.4g} it began with"
    if diverged is not None:
        return f"{flat}, and diverges from {diverged:.2g} on: try more --steps, a larger data.batch_size or a norm"
    return f"{flat}, from {rates[0]:.2g} to {rates[-1]:.2g}: no rate of these trains; does dltrain overfit pass?"


def _reason(steepest: float, least: float, diverged: float | None, suggestion: float) -> str:
    end = "does not diverge: try a higher --to" if diverged is None else f"diverges from {diverged:.2g} on"
    return (
        f"the smoothed loss falls most steeply at {steepest:.2g}, is least at {least:.2g} and {end}; "
        f"{suggestion:g} is, to one digit, a third of the rate where it is least"
    )
