"""A training run from ready objects to a finished folder: what is recorded, saved and shown, and when it stops."""

import math
from collections.abc import Iterator

from dltrain.build import Run
from dltrain.engine.probe import Probe
from dltrain.loggers.several import Loggers
from dltrain.run import checkpoint
from dltrain.run.console import Console
from dltrain.run.folder import WriteError, write_json, writing
from dltrain.run.pace import Pace
from dltrain.run.processor import Processor
from dltrain.run.signals import Interrupted, end_at_once, signalled
from dltrain.schedules import Plateau
from dltrain.train import Event, Row, evaluate_all, fit
from dltrain.verbs._decisions import Decisions
from dltrain.verbs._interruptible import Interruptible
from dltrain.verbs._keeper import Keeper
from dltrain.verbs._parts import Parts
from dltrain.verbs._summary import summary
from dltrain.verbs._test_reading import read_test

DIVERGED, NOT_LEARNED = 65, 70
DIVERGENCE = """a loss or gradient up to step {} was not finite: \
try a lower optim.lr, trainer.clip_norm=1 or trainer.on_divergence=rollback"""


class Session:
    """Consumes the events of `fit`; `go` returns the exit code. `train_flops` are those of an image."""

    def __init__(self, run: Run, keeper: Keeper, console: Console, loggers: Loggers, *, train_flops: int) -> None:
        self.run, self.trainer, self.keeper, self.console = run, run.trainer, keeper, console
        self.folder, self.position, self.monitor = keeper.folder, keeper.position, keeper.monitor
        self.loggers, self.train_flops = loggers, train_flops
        self.failed_saves, self.parts = 0, Parts(run.engine, console)
        self.steps = len(run.batches["train"]) * run.trainer.epochs
        self.until: int | None = None  # the step after which a replay of an interrupted run stops
        self.sha256: str | None = None
        self.decisions = Decisions(run.engine.ranks)
        self.received = self.decisions.received
        self.evaluations = {
            split: Interruptible(run.batches[split], self.decisions)
            for split, wanted in (("val", True), ("test", run.trainer.watch_test))
            if wanted and split in run.batches
        }
        self.probe, self.processor = Probe(run.engine), Processor(alone=run.engine.ranks.size == 1)
        self.pace = Pace(self.probe.watched(run.batches["train"]), asynchronous=run.engine.device.type != "cpu")

    def go(self) -> int:
        """Train to the end or to a reason to stop, then leave everything in the folder."""
        self.console.start(steps=self.steps, done=self.position.step)
        code, cause = 0, None
        with signalled(self.decisions.heard, grace_seconds=self.trainer.grace_seconds):
            try:
                status = self._train()
                if status == "completed":
                    self.keeper.save()
                    self._test()
                    if cause := self._not_learned():
                        status, code = "failed", NOT_LEARNED
                else:
                    self.keeper.save_best()
                    code, cause = DIVERGED, DIVERGENCE.format(self.position.step)
            except Interrupted as interruption:
                status, code = "interrupted", interruption.exit_code
                if self.position.step:
                    self.keeper.save()
            finally:
                self.console.stop()
            self.sha256 = self.sha256 or self._sha256()
            self._finish(status, code, cause=cause)
        return code

    def fail(self, error: BaseException) -> None:
        """Leave a summary that says what ended the run, where one can be written."""
        if self.run.engine.strategy.is_whole:  # or else the other ranks would have to come to it
            self.sha256 = self.sha256 or self._sha256()
        try:
            self._finish("failed", getattr(error, "exit_code", 1), cause=" ".join(str(error).split()))
        except WriteError:
            return  # that nothing can be written is what the error says, too

    def _train(self) -> str:
        """Train to the end or to divergence that the policy does not bear; returns the status."""
        if self.trainer.on_divergence == "rollback" and self.position.step == 0:
            self._save_or_go_on()
        status = "rolled back"
        while status == "rolled back":
            status = self._go_on()
        return status if self.run.engine.is_finite() else "diverged"

    def _go_on(self) -> str:
        """Train from where the run stands, until it is over or went back to a checkpoint."""
        for event in self._events():
            self._take(event)
            if event.row and event.row.get("nonfinite_steps") and (consequence := self._diverged()):
                return consequence
            over = not event.pending
            if over:
                self._tell_of_epoch()
            due = over and event.step and self.keeper.saver.due(step=event.step, epoch=event.epoch)
            if self.decisions.agree(bool(due)):
                self._save_or_go_on()
            if self.received or (over and event.step == self.until):
                raise Interrupted([*self.received, 0][0])
            if over and self._stalled():
                return "completed"
        return "completed"

    def _events(self) -> Iterator[Event]:
        """What is still to come of the step that was interrupted, then of the loop."""
        engine, position = self.run.engine, self.position
        if position.step == 0 and self.trainer.eval_at_start:
            position.pending = list(self.evaluations)
        missed = {split: self.evaluations[split] for split in position.pending}
        yield from evaluate_all(engine, missed, step=position.step, epoch=position.epoch)
        if not self._stalled():
            events = fit(
                engine,
                self.pace,
                epochs=self.trainer.epochs,
                evaluations=self.evaluations,
                evaluate_at=self._evaluates_at,
                log_every=self.trainer.interval(len(self.run.batches["train"])),
                start=self.position.step,
            )
            yield from self.pace.follow(events)

    def _evaluates_at(self, step: int) -> bool:
        """Whether a step of an epoch is the first to have seen another `eval_every_examples` examples of it."""
        every, bounds = self.trainer.eval_every_examples, self.run.batches["train"].bounds
        return every is not None and bounds[step - 1][1] // every > bounds[step - 1][0] // every

    def _take(self, event: Event) -> None:
        """Count a step, record a row."""
        if event.step > self.position.step:
            self.console.step()
            self.parts.tell()
            if self.console.waits_for_news and not self.pace.asynchronous:
                self.console.row(self.run.engine.window.read(own=True))
            if self.trainer.must_learn:
                self.position.losses.append(float(self.run.engine.last_loss))
        self.position.take(event)
        row = event.row
        if row is None:
            return
        self._add(row)
        if row["split"] == "train":
            self.console.row(row)
        if event.step and self.monitor.observe(row):
            self.keeper.best_weights = self.run.engine.weights()
        if isinstance(self.run.schedule, Plateau) and row["split"] == "val":
            value = row[self.run.schedule.metric]
            self.run.schedule.observe(math.nan if value is None else value)

    def _add(self, row: Row) -> None:
        record = self.keeper.record
        failed_before = record.failure is not None
        record.add(row)
        if record.failure and not failed_before:
            self.console.say(f"note: {record.failure}; training goes on, and rows wait in memory")
        self.loggers.add(row)

    def _tell_of_epoch(self) -> None:
        """Where an epoch has ended, its line."""
        if self.position.epoch_rows:
            self.console.epoch(self.position.epoch_rows, epochs=self.trainer.epochs)
            self.position.epoch_rows = []

    def _stalled(self) -> bool:
        patience = self.trainer.early_stop
        if patience is None or self.monitor.stalled < patience:
            return False
        self.console.say(f"no better {self.trainer.monitor} for {patience} evaluations: stopped early")
        return True

    def _diverged(self) -> str | None:
        """What a step that was not finite leads to, by the policy: an end, a way back, or nothing."""
        position, policy = self.position, self.trainer.on_divergence
        if policy == "skip" and position.skipped <= self.trainer.max_skipped:
            return None
        if policy == "rollback" and position.rollbacks < self.trainer.max_rollbacks:
            until = position.step
            rate = self.keeper.roll_back()
            self.console.say(
                f"note: a loss or gradient before step {until} was not finite: back to step {position.step}, "
                f"at {rate:g} of the rate"
            )
            return "rolled back"
        return "diverged"

    def _save_or_go_on(self) -> None:
        """Save; where that cannot be, train on, until it could not be too often in a row."""
        try:
            self.keeper.save()
            self.failed_saves = 0
        except WriteError as error:
            self.failed_saves += 1
            if self.failed_saves >= self.trainer.max_save_failures:
                raise
            self.console.say(f"note: {error}; training goes on, and saving is tried again at the next interval")

    def _test(self) -> None:
        """Read the test set once, on the best weights where a validation split chose them, and keep what came of it."""
        self.sha256 = self._sha256()
        if "test" not in self.run.batches:
            return
        watched = "test" in self.evaluations
        reading = read_test(self.keeper, self.decisions, watched=watched)
        if not watched:
            self.position.last_rows["test"] = reading.row
            self._add(reading.row)
        self.run.engine.ranks.once(lambda: reading.write(self.folder))

    def _not_learned(self) -> str | None:
        """Where `must_learn` asks: which batch's loss did not fall from its first time to its last."""
        if not self.trainer.must_learn:
            return None
        batches = self.trainer.overfit_batches or len(self.run.batches["train"])
        if (cause := self.position.unlearned(batches)) is None:
            self.console.say(f"check passed: the loss of each of the {batches} batches fell")
        return cause

    def _finish(self, status: str, code: int, *, cause: str | None = None) -> None:
        """Draw, sum up and show, then close the loggers, which may be slow. Raises WriteError."""
        try:
            if self.run.engine.ranks.leads:
                self._sum_up(status, code, cause)
        finally:
            if not self.loggers.close(status, patience=self.trainer.grace_seconds / 2):
                end_at_once()

    def _sum_up(self, status: str, code: int, cause: str | None) -> None:
        self.keeper.record.write()
        self.keeper.record.close()
        from dltrain.report import run_page, run_pictures  # matplotlib takes half a second to import

        with writing(self.folder):
            run_pictures.draw_run(self.folder)
        sources = (self.keeper, self.pace, self.probe, self.processor)
        result = summary(self.run, *sources, train_flops=self.train_flops)
        end = {"status": status, "exit_code": code, "cause": cause}
        write_json(self.folder / "summary.json", {**end, **result, "weights_sha256": self.sha256})
        if failure := run_page.try_page(self.folder):
            self.console.say(f"note: no report.html: {failure}")
        self.console.results({**end, **result}, self.folder)

    def _sha256(self) -> str:
        return checkpoint.weights_sha256(self.run.engine.strategy.weights(self.run.engine.model))
