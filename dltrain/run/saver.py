"""When to save a checkpoint, and which to keep."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from dltrain.run import checkpoint, faults
from dltrain.run.folder import writing

AFFORDABLE = 0.05
USAGE = ("step", "epoch", "best", "model_facts", "class_names", "preprocessing")  # of a state, what weights need


class Saver:
    """Saves at an interval: `auto`, or a number of steps, epochs or minutes; and always at the end.

    `auto` saves after the first epoch, and after later ones while saving has taken less than 5 % of the time.
    The newest `keep` that verify are kept, every `keep_every`-th, and the best weights of each.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: str,
        keep: int,
        keep_every: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.folder = folder / "checkpoints"
        count, _, unit = every.partition(" ")
        self.count, self.unit = (0, "auto") if every == "auto" else (int(count), unit.rstrip("s"))
        self.keep, self.keep_every = keep, keep_every
        self.clock = clock
        self.started = self.tried_at = clock()
        self.cost = self.last_cost = 0.0
        self.newest: Path | None = None
        self.sound: set[Path] = set()

    def forget_after(self, step: int) -> None:
        """Begin from a step: checkpoints of later ones are of another course of events. Raises WriteError."""
        known = {checkpoint.number(path) for path in checkpoint.steps(self.folder)}
        checkpoint.prune(self.folder, {number for number in known if number <= step})
        path = self.folder / checkpoint.folder_name(step)
        if path.is_dir():
            self.newest = path
            self.sound.add(path)

    def due(self, *, step: int, epoch: float) -> bool:
        """Whether the interval has come round at this step, `epoch` being epochs done."""
        now = self.clock()
        if self.unit == "minute":
            return now - self.tried_at >= 60 * self.count
        if self.unit == "step":
            return step % self.count == 0
        if epoch != int(epoch):
            return False
        if self.unit == "epoch":
            return int(epoch) % self.count == 0
        return epoch == 1 or self.cost + self.last_cost < AFFORDABLE * (now - self.started)

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> bool:
        """Publish a checkpoint, unless the last one is of this step; then let go of old ones. Raises WriteError.

        Returns whether there was anything to do. `state` has `best`, a row with the step of the best weights, or null,
        and `saves`, the count of checkpoints.
        """
        path = self.folder / checkpoint.folder_name(step)
        if path == self.newest:
            return False
        with self._counted():
            checkpoint.save(self.folder, step, tensors, state)
            self.newest = path
            self.sound.add(path)
            self._hint("latest", path)
            if state["best"]:
                self._hint("best", path.with_name(checkpoint.folder_name(state["best"]["step"])))
            faults.reach("save: hinted")
            self._prune()
        return True

    def save_best(self, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Publish the best weights, where the step's checkpoint does not hold them already. Raises WriteError."""
        with self._counted():
            checkpoint.save(self.folder, step, {"model": weights}, state)

    def _prune(self) -> None:
        """Delete what is not to be kept."""
        kept: list[Path] = []
        for path in reversed(checkpoint.steps(self.folder)):
            if not checkpoint.is_weights_only(path) and self._is_wanted(path, len(kept)):
                kept.append(path)
        best = [_state(path)["best"] for path in kept]
        checkpoint.prune(self.folder, {*map(checkpoint.number, kept), *(row["step"] for row in best if row)})

    def _is_wanted(self, path: Path, newer: int) -> bool:
        """Whether to keep a checkpoint beside so many newer ones; one that does not verify is no use."""
        if newer >= self.keep and not self.keep_every:
            return False
        if path not in self.sound and not checkpoint.is_sound(path):
            return False
        self.sound.add(path)
        return newer < self.keep or _state(path)["saves"] % self.keep_every == 0

    @contextmanager
    def _counted(self) -> Iterator[None]:
        before = self.clock()
        try:
            yield
        finally:
            self.tried_at = self.clock()
            self.last_cost = self.tried_at - before
            self.cost += self.last_cost

    def _hint(self, name: str, path: Path) -> None:
        """A file that names a checkpoint, for people; nothing depends on it."""
        with writing(self.folder / name):
            (self.folder / name).write_text(path.name + "\n")


def keep_weights(folder: Path) -> None:
    """Of a completed run keep the last and the best weights alone, from which no run goes on. Raises WriteError."""
    parent = folder / "checkpoints"
    last = max(checkpoint.steps(parent), key=checkpoint.number)
    best = _state(last)["best"]
    checkpoint.prune(parent, {checkpoint.number(last), *([best["step"]] if best else [])})
    for path in checkpoint.steps(parent):
        if not checkpoint.is_weights_only(path):
            tensors, state = checkpoint.load(path)
            tensors.pop("optim")
            checkpoint.publish(path, tensors, {key: state[key] for key in USAGE})


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    return state
