"""The training loop."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dltrain.engine.step import Batch, Engine

Row = dict[str, Any]


class Batches(Protocol):
    """An epoch's batches, which are a function of the epoch's number."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Event:
    """A step was taken, or a split evaluated; `epoch` counts epochs done, and the row is there when one is due.

    `pending` names the splits that are still to be evaluated at this step.
    """

    step: int
    epoch: float
    row: Row | None = None
    pending: tuple[str, ...] = ()


def fit(
    engine: Engine,
    batches: Batches,
    *,
    epochs: int,
    evaluations: Mapping[str, Batches] | None = None,
    evaluate_at: Callable[[int], bool] = lambda step: False,
    log_every: int = 50,
    start: int = 0,
) -> Iterator[Event]:
    """Train from step `start` on: yields after every optimizer step and every evaluation, and writes nothing.

    A train row stands at every `log_every`-th step, over the examples since the row before, and at an epoch's end,
    over the whole epoch. Making a row is the only thing that waits for the device. There is an evaluation at an
    epoch's end and where `evaluate_at` says so, of a step's number within its epoch, from 1.
    """
    steps_per_epoch, evaluations = len(batches), evaluations or {}
    for epoch in range(start // steps_per_epoch, epochs):
        if start % steps_per_epoch == 0:
            engine.begin_epoch()
        for step, batch in enumerate(batches.epoch(epoch, start % steps_per_epoch), start + 1):
            engine.step(batch, step - 1)
            done, last = step / steps_per_epoch, step % steps_per_epoch == 0
            row = engine.report(epoch=last) if last or step % log_every == 0 else None
            due = tuple(evaluations) if last or evaluate_at(step - epoch * steps_per_epoch) else ()
            yield Event(step, done, row and {"split": "train", "step": step, "epoch": done, **row}, due)
            yield from evaluate_all(engine, {split: evaluations[split] for split in due}, step=step, epoch=done)
        start = step


def evaluate_all(engine: Engine, evaluations: Mapping[str, Batches], *, step: int, epoch: float) -> Iterator[Event]:
    """Evaluate one split after another."""
    for place, (split, examples) in enumerate(evaluations.items(), 1):
        row = {"split": split, "step": step, "epoch": epoch, **evaluate(engine, examples)}
        yield Event(step, epoch, row, tuple(evaluations)[place:])


def evaluate(engine: Engine, batches: Batches) -> Row:
    """Mean loss and metrics over all batches."""
    with engine.evaluating() as totals:
        for batch in batches.epoch(0):
            engine.score(batch, totals)
        row = totals.read()
    del row["images_per_second"]
    return row


class Monitor:
    """Follows one number of one split, such as val_accuracy: its best value, and how long ago that was."""

    def __init__(self, name: str) -> None:
        self.split, _, self.metric = name.partition("_")
        self.sign = -1.0 if self.metric == "loss" else 1.0
        self.step: int | None = None
        self.value: float | None = None
        self.stalled = 0

    def observe(self, row: Row) -> bool | None:
        """Whether a row is the best so far, which null never is; None where it is of another split or number."""
        if row["split"] != self.split or self.metric not in row:
            return None
        value = None if row.get("loss", 0.0) is None else row[self.metric]
        improved = value is not None and (self.value is None or self.sign * (value - self.value) > 0)
        self.stalled = 0 if improved else self.stalled + 1
        if improved:
            self.step, self.value = row["step"], value
        return improved

    def state_dict(self) -> Row:
        """What it remembers."""
        return {"step": self.step, "value": self.value, "stalled": self.stalled}

    def load_state_dict(self, state: Row) -> None:
        """Remember that."""
        self.step, self.value, self.stalled = state["step"], state["value"], state["stalled"]

    def best(self) -> Row | None:
        """The best so far as the summary has it."""
        if self.step is None:
            return None
        return {"step": self.step, "split": self.split, "metric": self.metric, "value": self.value}
