"""How fast a run goes, what its time goes into, and how long it took to get going."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from dltrain.run.environment import process_age

Item = TypeVar("Item")
FEWEST_STEPS = 10


@dataclass
class Spent:
    """Steps, the images in them, and the seconds they took by what these were spent on."""

    steps: int = 0
    images: int = 0
    data: float = 0.0
    step: float = 0.0
    recording: float = 0.0

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.data + self.step + self.recording

    def add(self, other: "Spent") -> None:
        """Add what others took."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Pace:
    """Times a run from both ends of the loop: it serves the batches, and passes on the events.

    Each epoch counts from its first batch to its train row, as its rows have it. What comes between epochs is not
    training: evaluations count nowhere, checkpoints in what recording takes. The first steps set things up and do not
    count. On an asynchronous device a step that comes back is only queued, so there the time is taken from one train
    row, which waits for the device, to another.
    """

    def __init__(self, batches: Any, *, asynchronous: bool) -> None:
        self.batches, self.asynchronous = batches, asynchronous
        self.warm_up = 4 if asynchronous else 2  # the fourth step of a shape records a CUDA graph
        self.to_first_step: float | None = None
        self.settled_steps = 0
        self.stretch, self.steady = Spent(), Spent()  # since the device last had nothing left to do; all that counts
        self.waited, self.between = 0.0, 0.0

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Serve the batches of an epoch, and note how long each was waited for."""

        def serve() -> Iterator[Any]:
            yield from self.batches.epoch(epoch, start)

        for batch, seconds in timed(serve()):
            self.waited = seconds
            self.stretch.images += getattr(batch, "examples", len(batch[1]))  # of all ranks
            yield batch

    def follow(self, events: Iterable[Any]) -> Iterator[Any]:
        """The loop's events; the time until the next one is asked for is that of recording."""
        step = None
        for event, seconds in timed(events):
            if event.step != step:
                step = event.step
                self._count(seconds, settled=event.row is not None or not self.asynchronous)
            before = time.perf_counter()
            yield event
            seconds = time.perf_counter() - before
            if event.epoch != int(event.epoch):
                self.stretch.recording += seconds
            elif self.settled_steps > self.warm_up:
                self.between += seconds

    def _count(self, seconds: float, *, settled: bool) -> None:
        """A step and its batch took so long; it is settled when the device has nothing left to do."""
        if self.to_first_step is None:
            self.to_first_step = process_age()
        stretch, own = self.stretch, seconds - self.waited
        stretch.steps += 1
        stretch.data += self.waited
        stretch.step += own
        if not settled:
            return
        if self.asynchronous and own > 2 * stretch.seconds / stretch.steps:
            # More than a step was left to wait for: the device never ran out of work while the host got its data.
            stretch.data, stretch.step = 0.0, stretch.step + stretch.data
        if self.settled_steps >= self.warm_up:
            self.steady.add(stretch)
        self.settled_steps += stretch.steps
        self.stretch = Spent()

    def images_per_second(self) -> float | None:
        """None while too few steps were taken to tell."""
        return self.steady.images / self.steady.seconds if self.steady.steps >= FEWEST_STEPS else None

    def shares(self, *, fixed: float) -> dict[str, float]:
        """The parts of the time that go into data, recording, computing, and what any step takes: `fixed` seconds."""
        total = self.steady.seconds + self.between
        overhead = min(fixed * self.steady.steps, self.steady.step)
        return {
            "data": self.steady.data / total,
            "recording": (self.steady.recording + self.between) / total,
            "overhead": overhead / total,
            "computing": (self.steady.step - overhead) / total,
        }


def timed(items: Iterable[Item]) -> Iterator[tuple[Item, float]]:
    """Each item with the seconds it took to come."""
    iterator = iter(items)
    while True:
        before = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        yield item, time.perf_counter() - before
