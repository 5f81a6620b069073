"""Who is compared: dltrain and the loop of the course notes here, what else is installed in `peers.py`."""

import json
import sys
from abc import ABC, abstractmethod
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from dltrain.bench import course
from dltrain.bench.machine import stopwatch, wait
from dltrain.bench.task import Task, Work, first_batches
from dltrain.train import fit


class Contestant(ABC):
    """Trains its own copy of a network in a precision; `losses` are those of the steps taken last."""

    name: str

    def __init__(self, work: Work, precision: str) -> None:
        self.work, self.precision = work, precision
        self.losses: list[float] = []

    @abstractmethod
    def steps(self, count: int) -> None:
        """Take so many steps on the prepared batches in turn."""

    @abstractmethod
    def epoch(self) -> None:
        """Train an epoch with a loader of its own, and evaluate once."""

    def step_seconds(self, count: int) -> float:
        """Seconds that so many steps take, without what comes once before them."""
        return stopwatch(lambda: self.steps(count), self.work.device)

    def command(self, output: Path) -> list[str] | None:
        """What one would type for an epoch whose results are on disk; None where there is no such thing."""
        return None


class Ours(Contestant):
    """dltrain, in the precision it chooses or is told, or in another one."""

    name = "dltrain"

    def __init__(self, task: Task, precision: str) -> None:
        super().__init__(task, precision)
        self.overrides = task.overrides
        self.run = task.run if task.precision == precision else task.run_in(precision)
        self.batches = first_batches(self.run)

    def steps(self, count: int) -> None:
        engine = self.run.engine
        for step, batch in enumerate(islice(cycle(self.batches), count)):
            engine.step(batch, step)
        wait(engine.device)
        self.losses = [engine.last_loss.item()]

    def epoch(self) -> None:
        run = self.run
        for _ in fit(run.engine, run.batches["train"], epochs=1, evaluations={"test": run.batches["test"]}):
            pass

    def command(self, output: Path) -> list[str]:
        words = [*self.overrides, f"device.precision={self.precision}", "trainer.epochs=1"]
        return [sys.executable, "-m", "dltrain", *words, f"outputs_dir={output}"]


class Course(Contestant):
    """The loop of the course notes, in bf16 under autocast."""

    name = "course loop"

    def __init__(self, work: Work, precision: str) -> None:
        super().__init__(work, precision)
        self.model = work.model()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=work.rate)
        self.train, self.test = course_loaders(work)
        self.how: dict[str, Any] = {"device": work.device, "bf16": precision == "bf16"}

    def steps(self, count: int) -> None:
        batches = islice(cycle(self.work.plain_batches), count)
        self.losses = course.train(self.model, batches, self.optimizer, **self.how)

    def epoch(self) -> None:
        course.train(self.model, self.train, self.optimizer, **self.how)
        course.evaluate(self.model, self.test, **self.how)

    def command(self, output: Path) -> list[str] | None:
        if self.precision != "fp32":
            return None
        work = self.work
        values = {
            "model": work.name,
            "settings": json.dumps(work.settings),
            "threads": torch.get_num_threads(),
            "device": work.device.type,
            "data": work.folder,
            "output": output,
            "image-size": work.image_size,
            "batch-size": work.batch_size,
            "train-examples": work.examples["train"],
            "test-examples": work.examples["test"],
            "rate": work.rate,
        }
        words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "dltrain.bench.course", *words]


def course_loaders(work: Work) -> list[DataLoader]:
    """The course's loaders of the images to train on and of those to evaluate."""
    how = {"image_size": work.image_size, "batch_size": work.batch_size}
    splits = (("train", True), ("test", False))
    return [course.loader(work.folder, train=train, examples=work.examples[split], **how) for split, train in splits]
