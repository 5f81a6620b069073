"""Learning-rate schedules: pure functions from a step to the multiplier of the initial rate.

A schedule is called with `(step, steps_per_epoch, total_steps)`, where `step` counts optimizer steps from 0
and the multiplier is the one that this very step uses. A factory raises ValueError for an impossible value.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

Schedule = Callable[[int, int, int], float]

__all__ = [
    "constant",
    "cosine",
    "exponential",
    "inverse_sqrt",
    "linear",
    "multistep",
    "onecycle",
    "piecewise",
    "plateau",
    "polynomial",
    "step",
]


def warmup(schedule: Schedule, *, warmup: int | float) -> Schedule:
    """Ramp linearly for `warmup` steps (int) or that fraction of all steps (float below 1).

    The first step's multiplier is one ramp step above 0, the ramp's last is the schedule's own at that step.
    """
    whole = isinstance(warmup, int)
    _require(warmup >= 0 if whole else 0 <= warmup < 1, "warmup", warmup, "steps (int) or a fraction below 1")

    def multiplier(step: int, steps_per_epoch: int, total_steps: int) -> float:
        ramp = warmup if whole else round(warmup * total_steps)
        if step >= ramp:
            return schedule(step, steps_per_epoch, total_steps)
        return (step + 1) / ramp * schedule(int(ramp) - 1, steps_per_epoch, total_steps)

    return multiplier if warmup else schedule


def constant() -> Schedule:
    return lambda step, steps_per_epoch, total_steps: 1.0


def step(*, size: int = 5, gamma: float = 0.1) -> Schedule:
    """gamma^floor(epoch / size)."""
    _require(size >= 1, "size", size, "1 epoch or more")
    _require(gamma > 0, "gamma", gamma, "above 0")
    return _by_time(lambda epoch: gamma ** (epoch // size), unit="epoch")


def multistep(*, milestones: Sequence[int] = (5, 8), gamma: float = 0.1) -> Schedule:
    """gamma^(number of milestones reached); milestones are epochs."""
    _require(_rises(milestones), "milestones", milestones, "epochs that rise, from 0 on")
    _require(gamma > 0, "gamma", gamma, "above 0")
    return _by_time(lambda epoch: gamma ** bisect_right(milestones, epoch), unit="epoch")


def linear(*, final: float = 0.0) -> Schedule:
    """A line from 1 at the first step to `final` one step after the last."""
    _require(final >= 0, "final", final, "0 or more")
    return _by_progress(lambda progress: 1 + (final - 1) * progress)


def cosine(*, final: float = 0.0) -> Schedule:
    """Half a cosine from 1 at the first step to `final` one step after the last.

    Source: Loshchilov and Hutter, https://arxiv.org/abs/1608.03983, without restarts.
    """
    _require(final >= 0, "final", final, "0 or more")
    return _by_progress(lambda progress: _anneal(1, final, progress))


def onecycle(*, rise: float = 0.3, start: float = 0.04, final: float = 4.0e-6) -> Schedule:
    """Half a cosine from `start` up to 1 over the fraction `rise` of all steps, then one down to `final`.

    `final` is reached one step after the last. Source: Smith and Topin, https://arxiv.org/abs/1708.07120.
    """
    _require(0 < rise < 1, "rise", rise, "between 0 and 1")
    _require(0 <= start <= 1, "start", start, "from 0 to 1")
    _require(0 <= final <= 1, "final", final, "from 0 to 1")

    def by_progress(progress: float) -> float:
        if progress < rise:
            return _anneal(start, 1, progress / rise)
        return _anneal(1, final, (progress - rise) / (1 - rise))

    return _by_progress(by_progress)


def piecewise(
    *,
    boundaries: Sequence[float] = (1000, 2000),
    values: Sequence[float] = (1.0, 0.1, 0.01),
    unit: str = "step",
) -> Schedule:
    """The first value before the first boundary, the next one from there on, and so forth."""
    _require(_rises(boundaries), "boundaries", boundaries, "numbers that rise, from 0 on")
    one_more = len(values) == len(boundaries) + 1
    _require(one_more, "values", values, f"{len(boundaries) + 1} numbers, one more than boundaries")
    _require(min(values) >= 0, "values", values, "0 or more")
    return _by_time(lambda time: float(values[bisect_right(boundaries, time)]), unit=unit)


def exponential(*, decay: float = 1.0e-3, unit: str = "step") -> Schedule:
    """e^(-decay t), t being 0 at the first step. Source: course notes."""
    _require(decay >= 0, "decay", decay, "0 or more")
    return _by_time(lambda time: math.exp(-decay * time), unit=unit)


def polynomial(*, b: float = 0.01, c: float = 0.5, unit: str = "step") -> Schedule:
    """(1 + b t)^-c, t being 0 at the first step. Source: course notes."""
    _require(b >= 0, "b", b, "0 or more")
    _require(c >= 0, "c", c, "0 or more")
    return _by_time(lambda time: float((1 + b * time) ** -c), unit=unit)


def inverse_sqrt(*, timescale: float = 1000.0, unit: str = "step") -> Schedule:
    """1 until t reaches the time scale, then sqrt(timescale / t).

    With a warm-up of as many steps it is the Transformer's: Vaswani et al., https://arxiv.org/abs/1706.03762.
    """
    _require(timescale > 0, "timescale", timescale, "above 0")
    return _by_time(lambda time: math.sqrt(timescale / max(time, timescale)), unit=unit)


class Plateau:
    """A schedule that depends on what it has observed; see `plateau`."""

    def __init__(self, *, factor: float, patience: int, threshold: float, metric: str, final: float) -> None:
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.metric, self.sign = metric, 1 if metric == "accuracy" else -1
        self.final = final
        self.multiplier = 1.0
        self.best: float | None = None
        self.waited = 0

    def __call__(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        return self.multiplier

    def observe(self, value: float) -> None:
        """Take the metric of one evaluation; NaN is no improvement."""
        gain = math.inf if self.best is None else self.sign * (value - self.best)
        if gain > self.threshold and not math.isnan(value):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            self.multiplier, self.waited = max(self.multiplier * self.factor, self.final), 0

    def state_dict(self) -> dict[str, Any]:
        return {"multiplier": self.multiplier, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.multiplier, self.best, self.waited = state["multiplier"], state["best"], state["waited"]


def plateau(
    *,
    factor: float = 0.1,
    patience: int = 2,
    threshold: float = 1.0e-4,
    metric: str = "loss",
    final: float = 0.0,
) -> Plateau:
    """Multiply by `factor` after more than `patience` evaluations in a row without a gain, down to `final`.

    A gain is a validation loss that falls, or a validation accuracy that rises, by more than `threshold`.
    """
    _require(0 < factor < 1, "factor", factor, "between 0 and 1")
    _require(patience >= 0, "patience", patience, "0 evaluations or more")
    _require(threshold >= 0, "threshold", threshold, "0 or more")
    _require(metric in ("loss", "accuracy"), "metric", metric, "loss or accuracy")
    _require(0 <= final <= 1, "final", final, "from 0 to 1")
    return Plateau(factor=factor, patience=patience, threshold=threshold, metric=metric, final=final)


def _by_time(value: Callable[[float], float], *, unit: str) -> Schedule:
    _require(unit in ("step", "epoch"), "unit", unit, "step or epoch")
    if unit == "step":
        return lambda step, steps_per_epoch, total_steps: value(step)
    return lambda step, steps_per_epoch, total_steps: value(step / steps_per_epoch)


def _by_progress(value: Callable[[float], float]) -> Schedule:
    return lambda step, steps_per_epoch, total_steps: value(min(step / total_steps, 1.0))


def _anneal(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def _rises(numbers: Sequence[float]) -> bool:
    return all(low < high for low, high in pairwise(numbers)) and all(number >= 0 for number in numbers)


def _require(holds: bool, key: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{key} must be {allowed}, not {value}")
