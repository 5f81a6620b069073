"""Contestants in a process of their own, as torch sets it up: what dltrain sets for a whole process is not theirs."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

from dltrain.bench.contestants import Contestant
from dltrain.bench.task import Work

HERE: dict[int, Contestant] = {}  # in the other process: those that are there


@contextmanager
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """Another process, for contestants to be `Apart` in."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_set_up) as process:
        yield process


class Apart(Contestant):
    """A contestant in another process, which trains there while this one waits."""

    def __init__(self, kind: type[Contestant], work: Work, precision: str, *, process: ProcessPoolExecutor) -> None:
        super().__init__(work, precision)
        self.name, self.process = kind.name, process
        self.number: int = process.submit(_begin, kind, work, precision).result()

    def steps(self, count: int) -> None:
        self._do("steps", count)

    def step_seconds(self, count: int) -> float:
        return float(self._do("step_seconds", count))

    def epoch(self) -> None:
        self._do("epoch")

    def command(self, output: Path) -> list[str] | None:
        words: list[str] | None = self._do("command", output)
        return words

    def _do(self, what: str, *arguments: Any) -> Any:
        answer, self.losses = self.process.submit(_do, self.number, what, arguments).result()
        return answer


def _set_up() -> None:
    # Loaders would start their workers as this process was started, anew, and not as they do for a user.
    set_start_method(None, force=True)


def _begin(kind: type[Contestant], work: Work, precision: str) -> int:
    number = len(HERE)
    HERE[number] = kind(work, precision)
    return number


def _do(number: int, what: str, arguments: tuple[Any, ...]) -> tuple[Any, list[float]]:
    contestant = HERE[number]
    return getattr(contestant, what)(*arguments), contestant.losses
