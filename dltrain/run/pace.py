"""How fast a run goes, and how long it took to get going."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from dltrain.run.environment import process_age

Item = TypeVar("Item")


class Pace:
    """The rate of steps once the first ones, which set things up, are over."""

    warm_up, fewest = 2, 10

    def __init__(self) -> None:
        self.steps, self.images, self.seconds = 0, 0, 0.0
        self.to_first_step: float | None = None

    def add(self, seconds: float, images: int) -> None:
        """A step over so many images took so long."""
        self.to_first_step = process_age() if self.to_first_step is None else self.to_first_step
        self.steps += 1
        if self.steps > self.warm_up:
            self.images += images
            self.seconds += seconds

    def images_per_second(self) -> float | None:
        """None while too few steps were taken to tell."""
        return self.images / self.seconds if self.steps >= self.warm_up + self.fewest else None


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
