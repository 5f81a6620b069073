"""Contestants in a process of their own: how dltrain has its process keep memory is not theirs."""

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dltrain.bench.contestants import Contestant
from dltrain.bench.task import Task, Work
from dltrain.engine.device import configure
from dltrain.run.signals import end_with_the_parent

WORK = "work.pt"
HERE: dict[int, Contestant] = {}  # in the other process: those that are there


@contextmanager
def elsewhere(task: Task) -> Iterator[ProcessPoolExecutor]:
    """Another process, for contestants to be `Apart` in, with our threads and, on a GPU, our settings."""
    torch.save(task.work, task.folder / WORK)  # and not through shared memory, of which containers have little
    node = task.run.config.device
    settings = (task.device, torch.get_num_threads(), node.tf32, node.deterministic)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_set_up, initargs=settings) as process:
        try:
            yield process
        except BaseException:
            for child in multiprocessing.active_children():
                child.kill()
            raise


class Apart(Contestant):
    """A contestant in another process, which trains there while this one waits."""

    def __init__(self, kind: type[Contestant], work: Work, precision: str, *, process: ProcessPoolExecutor) -> None:
        super().__init__(work, precision)
        self.name, self.kind, self.process = kind.name, kind, process
        self.number: int = process.submit(_begin, kind, work.folder / WORK, precision).result()

    def steps(self, count: int) -> None:
        self._do("steps", count)

    def step_seconds(self, count: int) -> float:
        return float(self._do("step_seconds", count))

    def epoch(self) -> None:
        self._do("epoch")

    def command(self, output: Path) -> list[str] | None:
        return self.kind.command(self, output)  # which needs the work alone

    def _do(self, what: str, *arguments: Any) -> Any:
        answer, self.losses = self.process.submit(_do, self.number, what, arguments).result()
        return answer


def _set_up(device: torch.device, threads: int, tf32: bool, deterministic: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of which the parent says what is to be said
    end_with_the_parent(1.0)
    # Loaders would start their workers as this process was started, anew, and not as they do for a user.
    multiprocessing.set_start_method(None, force=True)
    torch.set_num_threads(threads)
    if device.type == "cuda":
        configure(device, threads=threads, tf32=tf32, deterministic=deterministic)


def _begin(kind: type[Contestant], path: Path, precision: str) -> int:
    number = len(HERE)
    HERE[number] = kind(torch.load(path, weights_only=False), precision)
    return number


def _do(number: int, what: str, arguments: tuple[Any, ...]) -> tuple[Any, list[float]]:
    contestant = HERE[number]
    return getattr(contestant, what)(*arguments), contestant.losses
