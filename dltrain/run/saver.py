"""When to save a checkpoint, and which to keep."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from dltrain.run import checkpoint
from dltrain.run.folder import writing

AFFORDABLE = 0.05


class Saver:
    """Saves at an interval: `auto`, or a number of steps, epochs or minutes; and always at the end.

    `auto` saves after the first epoch, and after later ones while saving has taken less than 5 % of the time.
    """

    def __init__(self, folder: Path, *, every: str, keep: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.folder = folder / "checkpoints"
        count, _, unit = every.partition(" ")
        self.count, self.unit = (0, "auto") if every == "auto" else (int(count), unit.rstrip("s"))
        self.keep = keep
        self.clock = clock
        self.started = self.saved_at = clock()
        self.cost = self.last_cost = 0.0
        self.newest: Path | None = None

    def due(self, *, step: int, epoch: float) -> bool:
        """Whether the interval has come round at this step, `epoch` being epochs done."""
        now = self.clock()
        if self.unit == "minute":
            return now - self.saved_at >= 60 * self.count
        if self.unit == "step":
            return step % self.count == 0
        if epoch != int(epoch):
            return False
        if self.unit == "epoch":
            return int(epoch) % self.count == 0
        return epoch == 1 or self.cost + self.last_cost < AFFORDABLE * (now - self.started)

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], *, best: int | None
    ) -> Path:
        """Publish a checkpoint, unless the last one is of this step; then let go of old ones, but never of the best."""
        path = self.folder / checkpoint.folder_name(step)
        if path == self.newest:
            return path
        with self._counted():
            checkpoint.save(self.folder, step, tensors, state)
            self._hint("latest", path)
            if best is not None:
                self._hint("best", path.with_name(checkpoint.folder_name(best)))
            checkpoint.prune(self.folder, keep=self.keep, protect=set() if best is None else {best})
        self.saved_at, self.newest = self.clock(), path
        return path

    def save_best(self, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Publish the best weights, where the step's checkpoint does not hold them already."""
        with self._counted():
            checkpoint.save(self.folder, step, {"model": weights}, state)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        before = self.clock()
        yield
        self.last_cost = self.clock() - before
        self.cost += self.last_cost

    def _hint(self, name: str, path: Path) -> None:
        """A file that names a checkpoint, for people; nothing depends on it."""
        with writing(self.folder / name):
            (self.folder / name).write_text(path.name + "\n")
