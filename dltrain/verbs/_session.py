"""A training run from ready objects to a finished folder: what is recorded, saved and shown, and when it stops."""

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from dltrain.build import Run
from dltrain.engine.device import describe, peak_memory
from dltrain.engine.probe import Probe
from dltrain.loggers import Logger
from dltrain.run import checkpoint
from dltrain.run.console import Console
from dltrain.run.folder import write_json
from dltrain.run.pace import Pace
from dltrain.run.record import Record
from dltrain.run.saver import Saver
from dltrain.run.signals import signalled
from dltrain.schedules import Plateau
from dltrain.train import Event, Monitor, Row, evaluate, fit
from dltrain.verbs._throughput import throughput


class Session:
    """Consumes the events of `fit`; `go` returns the exit code. `train_flops` are those of an image."""

    def __init__(
        self, run: Run, folder: Path, console: Console, loggers: Iterable[Logger] = (), *, train_flops: int
    ) -> None:
        self.run, self.folder, self.console, self.loggers = run, folder, console, list(loggers)
        self.train_flops = train_flops
        self.record = Record(folder)
        self.saver = Saver(folder, every=run.trainer.checkpoint_every, keep=run.trainer.keep)
        self.monitor = Monitor(run.trainer.monitor)
        self.best_weights: dict[str, Tensor] | None = None
        self.evaluations = {
            split: run.batches[split]
            for split, wanted in (("val", True), ("test", run.trainer.watch_test))
            if wanted and split in run.batches
        }
        self.last_rows: dict[str, Row] = {}
        self.epoch_rows: list[Row] = []
        self.step, self.epoch = 0, 0.0
        self.losses: list[float] = []
        self.steps_per_epoch = len(run.batches["train"])
        self.pace = Pace(run.batches["train"], asynchronous=run.engine.device.type != "cpu")
        self.probe = Probe(run.engine)

    def go(self) -> int:
        """Train to the end or to a reason to stop, then leave everything in the folder."""
        started = time.perf_counter()
        status, code = "completed", 0
        events = fit(
            self.run.engine,
            self.pace,
            epochs=self.run.trainer.epochs,
            evaluations=self.evaluations,
            log_every=self.run.trainer.log_every,
        )
        self.console.start(steps=self.steps_per_epoch * self.run.trainer.epochs)
        with signalled() as received:
            for event in self.pace.follow(events):
                self._take(event)
                if event.row and event.row.get("nonfinite_steps"):
                    status, code = "diverged", 65
                    break
                if received:
                    status, code = "interrupted", received[0]
                    break
                if self._finished(event):
                    self._save_if_due()
                    if self._stalled():
                        break
        self.console.stop()
        return self._finish(status, code, seconds=time.perf_counter() - started)

    def _take(self, event: Event) -> None:
        """Count a step, record a row."""
        if event.step > self.step:
            self._count(event)
        if event.row is None:
            return
        if event.row["loss"] is not None:
            self.last_rows[event.row["split"]] = event.row
        self._add(event.row)
        if event.row["split"] == "train":
            self.console.row(event.row)
        if event.epoch == int(event.epoch):
            self.epoch_rows.append(event.row)
        if self.monitor.observe(event.row):
            self.best_weights = self.run.engine.weights()
        if isinstance(self.run.schedule, Plateau) and event.row["split"] == "val":
            value = event.row[self.run.schedule.metric]
            self.run.schedule.observe(math.nan if value is None else value)

    def _count(self, event: Event) -> None:
        self.step, self.epoch = event.step, event.epoch
        if self.run.trainer.must_learn:
            self.losses.append(float(self.run.engine.last_loss))
        self.console.step()

    def _add(self, row: Row) -> None:
        self.record.add(row)
        for logger in self.loggers:
            logger.add(row)

    def _finished(self, event: Event) -> bool:
        """Whether nothing more comes at this step; then an epoch's line is shown."""
        if event.epoch != int(event.epoch):
            return True
        if len(self.epoch_rows) < 1 + len(self.evaluations):
            return False
        self.console.epoch(self.epoch_rows, epochs=self.run.trainer.epochs)
        self.epoch_rows = []
        return True

    def _stalled(self) -> bool:
        patience = self.run.trainer.early_stop
        if patience is None or self.monitor.stalled < patience:
            return False
        self.console.say(f"no better {self.run.trainer.monitor} for {patience} evaluations: stopped early")
        return True

    def _save_if_due(self) -> None:
        if self.saver.due(step=self.step, epoch=self.epoch):
            self._save()

    def _save(self) -> None:
        """Save the best weights where no checkpoint holds them, then everything."""
        state = self.run.engine.state_dict()
        optimizer, values = checkpoint.flatten(state["optim"])
        tensors = {"model": state["model"], "optim": {**optimizer, **state["precision"]}}
        if state["ema"] is not None:
            tensors["ema"] = state["ema"]
        if self.monitor.step != self.step:
            self._save_best()
        self.saver.save(
            self.step,
            tensors,
            {**self._state(self.step), "optim": values, "totals": state["totals"]},
            best=self.monitor.step,
        )

    def _save_best(self) -> None:
        if self.best_weights is not None and self.monitor.step is not None:
            self.saver.save_best(self.monitor.step, self.best_weights, self._state(self.monitor.step))

    def _state(self, step: int) -> dict[str, Any]:
        return {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "best": self.monitor.best(),
            "model_facts": self.run.model_facts,
            "class_names": list(self.run.facts.class_names),
            "preprocessing": self.run.preprocessing,
        }

    def _finish(self, status: str, code: int, *, seconds: float) -> int:
        """Save, test the chosen weights, draw, sum up and show."""
        if status == "diverged":
            self._save_best()
        elif self.step:
            self._save()
        sha256 = checkpoint.weights_sha256(self.run.engine.model.state_dict())
        if status == "completed":
            self._test()
            code = self._check_learning()
        self.record.close()
        for logger in self.loggers:
            logger.close()
        from dltrain.report.curves import draw_curves  # matplotlib takes half a second to import

        draw_curves(self.folder)
        summary = {**self._summary(status, seconds=seconds), "weights_sha256": sha256}
        write_json(self.folder / "summary.json", summary)
        self.console.results(summary, self.folder)
        return code

    def _summary(self, status: str, *, seconds: float) -> Row:
        """What the run came to."""
        engine = self.run.engine
        return {
            "status": status,
            "model": self.run.config.model.name,
            "parameters": sum(parameter.numel() for parameter in engine.model.parameters()),
            "epochs": int(self.epoch) if self.epoch == int(self.epoch) else self.epoch,
            "steps": self.step,
            "device": describe(engine.device),
            "precision": engine.precision.name,
            "execution": engine.execution,
            "compile": self.run.config.device.compile,
            **{split: _result(self.last_rows.get(split)) for split in ("train", "val", "test")},
            "best": self.monitor.best(),
            **throughput(engine, self.pace, self.probe, train_flops=self.train_flops),
            "seconds": seconds,
            "seconds_to_first_step": self.pace.to_first_step,
            "peak_memory_bytes": peak_memory(engine.device),
            "ranks": 1,
        }

    def _test(self) -> None:
        """Read the test set once, on the best weights where a validation split chose them."""
        if "test" not in self.run.batches or "test" in self.evaluations:
            return
        if self.best_weights is not None:
            self.run.engine.evaluated.load_state_dict(self.best_weights)
        row = evaluate(self.run.engine, self.run.batches["test"])
        self.last_rows["test"] = {"split": "test", "step": self.step, "epoch": self.epoch, **row}
        self._add(self.last_rows["test"])

    def _check_learning(self) -> int:
        """Exit code 70 where `must_learn` asks and a batch's loss did not fall from its first time to its last."""
        if not self.run.trainer.must_learn:
            return 0
        batches = self.run.trainer.overfit_batches or self.steps_per_epoch
        for number in range(batches):
            losses = self.losses[number::batches]
            if len(losses) < 2 or not losses[-1] < losses[0]:
                path = " -> ".join(f"{loss:.4f}" for loss in (losses[0], losses[-1]))
                self.console.say(f"check failed: training did not lower the loss of batch {number + 1}: {path}")
                return 70
        self.console.say(f"check passed: the loss of each of the {batches} batches fell")
        return 0


def _result(row: Row | None) -> dict[str, float | None] | None:
    return row and {"loss": row["loss"], "accuracy": row.get("accuracy")}
