"""Measuring contestants one after the other, again and again, so that a noisy machine is unfair to all alike."""

import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dltrain.bench.apart import Apart
from dltrain.bench.contestants import Contestant, Ours
from dltrain.bench.machine import stopwatch
from dltrain.bench.task import Task

CHECKED_STEPS = 5  # after which losses are compared, and which warm up
Key = tuple[str, str]  # a contestant's name and precision
Kind = tuple[type[Contestant], str]


@dataclass
class Result:
    """Seconds that some images took, time after time; or why there are none."""

    model: str
    measure: str
    contestant: str
    precision: str
    images: int
    seconds: list[float] = field(default_factory=list)
    loss: float | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As a file of results has it."""
        return asdict(self)


def measure(
    task: Task,
    kinds: Sequence[Kind],
    *,
    repeats: int,
    seconds: float,
    command: bool,
    until: float = math.inf,
    apart: ProcessPoolExecutor | None = None,
) -> Iterator[Result]:
    """Yield the results of every contestant: the step's rate, an epoch's, and a command's where one is wanted.

    All but ours train in the process `apart`, where there is one.

    A measurement of the step takes at least about `seconds`. No second round begins that would not be done by `until`,
    on the clock of `time.perf_counter`. A contestant that fails has an error in place of seconds.
    """
    there: dict[Key, Contestant] = {}
    works: dict[Key, Callable[[], float]] = {}
    results = {(kind.name, precision): _result(task, "step", kind, precision) for kind, precision in kinds}
    for kind, precision in kinds:
        key, result = (kind.name, precision), results[kind.name, precision]
        try:
            one = _made(kind, task, precision, apart)
            result.loss = checked_loss(one)
            count = step_count(one, seconds=seconds)
            result.images = count * task.batch_size
            there[key], works[key] = one, partial(one.step_seconds, count)
        except Exception as error:
            result.error = _words(error)
    in_turns(works, results, repeats=repeats, until=until)
    yield from results.values()

    epochs = {key: partial(stopwatch, one.epoch, task.device) for key, one in there.items()}
    yield from _whole(task, "epoch", there, epochs, repeats=repeats, until=until)
    if command:
        with tempfile.TemporaryDirectory() as folder:
            commands = {key: one.command(Path(folder) / "outputs") for key, one in there.items()}
            typed = {key: partial(stopwatch, process(words), task.device) for key, words in commands.items() if words}
            yield from _whole(task, "command", there, typed, repeats=repeats, until=until)


def _made(kind: type[Contestant], task: Task, precision: str, apart: ProcessPoolExecutor | None) -> Contestant:
    if apart is None or issubclass(kind, Ours):
        return kind(task, precision)
    return Apart(kind, task.work, precision, process=apart)


def checked_loss(contestant: Contestant) -> float:
    """The loss after the first steps. Raises ValueError where it is not finite."""
    contestant.steps(CHECKED_STEPS)
    loss = contestant.losses[-1]
    if not math.isfinite(loss):
        raise ValueError(f"a loss of {loss} after {CHECKED_STEPS} steps")
    return loss


def step_count(contestant: Contestant, *, seconds: float) -> int:
    """How many steps take a contestant so many seconds: ever more are tried until that can be told."""
    count = 1
    while (taken := contestant.step_seconds(count)) < seconds / 4:
        count *= 2
    return math.ceil(count * seconds / taken)


def in_turns(
    works: Mapping[Key, Callable[[], float]], results: Mapping[Key, Result], *, repeats: int, until: float = math.inf
) -> None:
    """Do every work in turn, each round beginning with another one; one that fails drops out and says why."""
    names = list(works)
    for number in range(repeats if names else 0):
        start, first = time.perf_counter(), number % len(names)
        for name in [*names[first:], *names[:first]]:
            if results[name].error is None:
                try:
                    results[name].seconds.append(works[name]())
                except Exception as error:
                    results[name].error = _words(error)
        now = time.perf_counter()
        if now + (now - start) > until:
            break


def process(words: list[str]) -> Callable[[], Any]:
    """A command to run. Raises CalledProcessError where it fails."""
    return lambda: subprocess.run(words, check=True, capture_output=True, text=True)


def _result(task: Task, measure: str, who: type[Contestant] | Contestant, precision: str, images: int = 0) -> Result:
    return Result(task.name, measure, who.name, precision, images)


def _whole(
    task: Task, measure: str, there: dict[Key, Contestant], works: Mapping[Key, Callable[[], float]], **how: Any
) -> Iterator[Result]:
    """The results of works that each train an epoch."""
    results = {key: _result(task, measure, there[key], key[1], task.examples["train"]) for key in works}
    in_turns(works, results, **how)
    yield from results.values()


def _words(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error)
    return f"{type(error).__name__}: {text.strip().splitlines()[-1] if text.strip() else ''}"
