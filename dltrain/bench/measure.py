"""Measuring contestants one after the other, again and again, so that a noisy machine is unfair to all alike."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dltrain.bench.contestants import Contestant
from dltrain.bench.machine import stopwatch
from dltrain.bench.task import Task

CHECKED_STEPS = 5  # after which losses are compared, and which warm up


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
    task: Task, kinds: list[type[Contestant]], *, repeats: int, seconds: float, command: bool
) -> Iterator[Result]:
    """Yield the results of every contestant: the step's rate, an epoch's, and a command's where one is wanted.

    `seconds` is about what one measurement of the step takes us.
    """
    results: dict[str, Result] = {}
    contestants: dict[str, Contestant] = {}
    name = task.run.config.model.name
    for kind in kinds:
        result = results[kind.name] = Result(name, "step", kind.name, kind.precision, 0)
        try:
            contestants[kind.name] = contestant = kind(task)
            contestant.steps(CHECKED_STEPS)
            result.precision, result.loss = contestant.precision, contestant.losses[-1]
        except Exception as error:
            if kind is kinds[0]:  # ours: nothing could be compared
                raise
            result.error = _words(error)
            contestants.pop(kind.name, None)
    ours = next(iter(contestants.values()))
    each = stopwatch(lambda: ours.steps(1), task.device)
    count = min(max(1, round(seconds / each)), 200)
    works: dict[str, Callable[[], Any]] = {key: _steps(one, count) for key, one in contestants.items()}
    for result in results.values():
        result.images = count * task.batch_size
    _interleaved(works, results, task, repeats)
    yield from results.values()

    whole = {key: Result(name, "epoch", key, one.precision, task.images("train")) for key, one in contestants.items()}
    _interleaved({key: one.epoch for key, one in contestants.items()}, whole, task, repeats)
    yield from whole.values()
    if command:
        yield from _commands(task, contestants, repeats)


def _steps(contestant: Contestant, count: int) -> Callable[[], None]:
    return lambda: contestant.steps(count)


def _commands(task: Task, contestants: dict[str, Contestant], repeats: int) -> Iterator[Result]:
    """From Enter to files on disk."""
    with tempfile.TemporaryDirectory() as folder:
        works, results = {}, {}
        for key, contestant in contestants.items():
            words = contestant.command(Path(folder) / "outputs")
            if words is not None:
                works[key] = _process(words)
                precision, images = contestant.precision, task.images("train")
                results[key] = Result(task.run.config.model.name, "command", key, precision, images)
        _interleaved(works, results, task, repeats)
    yield from results.values()


def _process(words: list[str]) -> Callable[[], Any]:
    return lambda: subprocess.run(words, check=True, capture_output=True, text=True)


def _interleaved(works: dict[str, Callable[[], Any]], results: dict[str, Result], task: Task, repeats: int) -> None:
    """Time every work in turn, each round beginning with another one; one that fails drops out and says why."""
    names = list(works)
    for number in range(repeats):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            if results[name].error is None:
                try:
                    results[name].seconds.append(stopwatch(works[name], task.device))
                except Exception as error:
                    results[name].error = _words(error)


def _words(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error)
    return f"{type(error).__name__}: {text.strip().splitlines()[-1] if text.strip() else ''}"
