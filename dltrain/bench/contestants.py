"""Who is compared: dltrain and the loop of the course notes here, what else is installed in `peers.py`."""

import sys
from abc import ABC, abstractmethod
from itertools import cycle, islice
from pathlib import Path

import torch

from dltrain.bench import course
from dltrain.bench.machine import wait
from dltrain.bench.task import Task
from dltrain.train import fit


class Contestant(ABC):
    """Trains its own copy of a task's network; `losses` are those of the steps taken last."""

    name: str
    precision = "fp32"

    def __init__(self, task: Task) -> None:
        self.task = task
        self.losses: list[float] = []

    @abstractmethod
    def steps(self, count: int) -> None:
        """Take so many steps on the prepared batches in turn."""

    @abstractmethod
    def epoch(self) -> None:
        """Train an epoch with a loader of its own, and evaluate once."""

    def command(self, output: Path) -> list[str] | None:
        """What one would type for an epoch whose results are on disk; None where there is no such thing."""
        return None


class Ours(Contestant):
    """dltrain, in the precision it chooses or is told."""

    name = "dltrain"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.precision = task.run.engine.precision.name

    def steps(self, count: int) -> None:
        engine = self.task.run.engine
        for step, batch in enumerate(islice(cycle(self.task.batches), count)):
            engine.step(batch, step)
        wait(engine.device)
        self.losses = [engine.last_loss.item()]

    def epoch(self) -> None:
        run = self.task.run
        for _ in fit(run.engine, run.batches["train"], epochs=1, evaluations={"val": run.batches["val"]}):
            pass

    def command(self, output: Path) -> list[str]:
        words = [*self.task.overrides, "trainer.epochs=1", f"outputs_dir={output}"]
        return [sys.executable, "-m", "dltrain", *words]


class Course(Contestant):
    """The loop of the course notes in float32."""

    name = "course loop"
    bf16 = False

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.model = task.model()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=task.rate)
        how = {"image_size": task.image_size, "batch_size": task.batch_size}
        self.train = course.loader(task.folder, train=True, examples=task.images("train"), **how)
        self.val = course.loader(task.folder, train=False, examples=task.images("val"), **how)

    def steps(self, count: int) -> None:
        batches = islice(cycle(self.task.plain_batches), count)
        self.losses = course.train(self.model, batches, self.optimizer, device=self.task.device, bf16=self.bf16)

    def epoch(self) -> None:
        course.train(self.model, self.train, self.optimizer, device=self.task.device, bf16=self.bf16)
        course.evaluate(self.model, self.val, device=self.task.device, bf16=self.bf16)

    def command(self, output: Path) -> list[str] | None:
        task = self.task
        values = {
            "model": task.run.config.model.name,
            "device": task.device.type,
            "data": task.folder,
            "output": output,
            "image-size": task.image_size,
            "batch-size": task.batch_size,
            "train-examples": task.images("train"),
            "test-examples": task.images("val"),
            "rate": task.rate,
        }
        words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "dltrain.bench.course", *words]


class CourseBf16(Course):
    """The loop of the course notes with autocast."""

    name = "course loop, autocast"
    precision = "bf16"
    bf16 = True

    def command(self, output: Path) -> None:
        return None
