"""A sweep: jobs in processes and folders of their own, a ledger of what became of each, then a ranked table."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.run.console import Console
from dltrain.run.folder import read_json
from dltrain.run.signals import signalled
from dltrain.sweep.cluster import ClusterLauncher
from dltrain.sweep.grid import settings
from dltrain.sweep.launcher import Launcher, Outcome
from dltrain.sweep.ledger import Job, Ledger
from dltrain.sweep.slots import slots
from dltrain.sweep.summary import Row, label, result
from dltrain.verbs._configured import Configurations
from dltrain.verbs._job import IN_USE, Request, drop_state, preloaded, run_job
from dltrain.verbs._sweep_board import Board, at_a_time, outcome_of
from dltrain.verbs._sweep_page import try_page
from dltrain.verbs._sweep_table import MORE_SEEDS, sum_up

SOME_FAILED, DIVERGED, INTERRUPTED = 3, 65, (130, 143)
OWN_WORK_SECONDS = 10.0  # of a sweep that is asked to end, beside the grace of its jobs
ECHO_SECONDS = 0.5  # within which `timeout`, which asks a process and then its group, has asked twice


class Sweep:
    """The jobs of a grid in their folder, some of which may have run before.

    `compositions` are by number, a refused one being its error. `config` is that of any job.
    """

    good: tuple[str, ...] = ("completed",)

    def __init__(
        self,
        ledger: Ledger,
        compositions: dict[int, Composition | ConfigError],
        config: Any,
        *,
        allow_changes: bool = False,
    ) -> None:
        self.ledger, self.compositions, self.config = ledger, compositions, config
        self.folder, self.console, self.allow_changes = ledger.folder, Console(), allow_changes
        self.configurations = Configurations(self.folder, compositions)
        self.settings, self.apart = self.told_apart()
        self.open: set[int] = set()

    def go(self) -> int:
        """Run what has not finished, sum up, and return the exit code."""
        waiting = [job for job in self.ledger.jobs if job.number in self.compositions and not self.is_finished(job)]
        self.open = {job.number for job in waiting}
        if left := self.left(waiting):
            received: list[int] = []
            grace = self.config.trainer.grace_seconds + OWN_WORK_SECONDS
            heard = signalled(received, grace_seconds=grace, echo_seconds=ECHO_SECONDS)
            with heard, Board(self.console, self.label, self.state) as board:

                def look(running: list[Any]) -> None:
                    self.look(running)
                    board.look(running)

                for request, outcome in self.launcher(left).run(self.requests(waiting), received=received, look=look):
                    self.end(self.ledger.jobs[request.number], outcome)
        else:
            self.console.say(f"{self.folder}: there is nothing left to run")
            received = []
        self.settings, self.apart = self.told_apart()
        if self.apart:
            keys = ", ".join(self.apart)
            self.console.say(f"note: jobs of the same words have run with other values of {keys}: they stand apart")
        rows = [self.row(job) for job in self.ledger.jobs]
        sum_up(self.console, self.folder, rows, repeat=self.repeat)
        self.console.say(try_page(self.folder, rows))
        if any(job.status in ("waiting", "interrupted") for job in self.ledger.jobs):
            self.console.say(f"to go on: dltrain resume {self.folder}")
        if received:
            return received[0]
        return 0 if all(job.status in self.good for job in self.ledger.jobs) else SOME_FAILED

    def left(self, waiting: Sequence[Job]) -> int:
        """How many jobs are to be run."""
        return len(waiting)

    def launcher(self, jobs: int) -> Launcher | ClusterLauncher:
        """What runs so many jobs, here or on a cluster; says so."""
        _, _, cluster = self.config.sweep.launcher.partition("submitit_")
        if cluster:
            known = self.config.sweep.search == "grid"
            self.console.say(
                f"{jobs} to run in {self.folder}, {self.config.sweep.slurm.at_once} at a time on {cluster}"
            )
            return ClusterLauncher(run_job, self.config, self.folder, cluster=cluster, all_known=known)
        known = [each.config for each in map(self.compositions.get, self.open) if isinstance(each, Composition)]
        places = slots([*known, *[self.config] * (jobs - len(known))])
        timeout, grace = self.config.sweep.timeout, self.config.trainer.grace_seconds
        done = self.done
        had = f"{done} done, " if done else ""
        self.console.say(f"{had}{jobs} to run in {self.folder}, {at_a_time(places)}")
        with preloaded(self.compositions.values()) as modules:
            return Launcher(
                run_job,
                places,
                errors=lambda request: self._errors(request.number),
                preload=modules,
                timeout=timeout,
                grace_seconds=grace,
            )

    def requests(self, waiting: Sequence[Job]) -> Iterator[Request]:
        """The next job to run, recorded as begun."""
        for job in waiting:
            yield from self.request(job)

    def request(self, job: Job) -> Iterator[Request]:
        """A job, recorded as begun; one whose configuration is refused ends before it begins."""
        composition = self.compositions[job.number]
        self.ledger.start(job)
        if isinstance(composition, ConfigError):
            self.end(job, Outcome(composition.exit_code, str(composition)))
        else:
            yield Request(job.number, self.folder, composition, self.allow_changes)

    def look(self, running: list[Any]) -> None:
        """See the jobs under way, several times a second."""

    def end(self, job: Job, outcome: Outcome) -> None:
        """Record how a job ended, and say so."""
        status, folder = _status(outcome), self.folder / str(job.number)
        said = outcome.stopped or outcome.message or (read_json(folder / "summary.json") or {}).get("cause")
        cause = (said or outcome.words) if status in ("failed", "diverged") else ""
        self.ledger.end(job, status=status, code=outcome.code, cause=cause)
        self.open.discard(job.number)
        logs = [log for log in (self._errors(job.number), folder / "train.log") if log.is_file()]
        where = f", see {' and '.join(map(str, logs))}" if logs and status == "failed" else ""
        self.console.say(f"{self.done}/{self.total}  {self.label(job)}  {status}  {outcome_of(self.row(job))}{where}")

    def _errors(self, number: int) -> Path:
        """What a job's process printed as errors, where it failed."""
        return self.folder / f"{number}.err"

    @property
    def done(self) -> int:
        """How many jobs have come to an end, and are not to be run."""
        ended = [job for job in self.ledger.jobs if job.status not in ("waiting", "interrupted")]
        return sum(job.number not in self.open for job in ended)

    def state(self) -> str:
        """How far the sweep is."""
        return f"{self.done} of {self.total} done"

    @property
    def total(self) -> int:
        """How many jobs there are to be."""
        return len(self.ledger.jobs)

    def label(self, job: Job | Request) -> str:
        """What tells a job from the others."""
        return label(self.settings[job.number]) or "all"

    def row(self, job: Job) -> Row:
        """A job's line in the tables."""
        folder = self.folder / str(job.number)
        return result(folder, job=job.number, settings=self.settings[job.number], status=job.status, cause=job.cause)

    def chosen(self) -> list[dict[str, str]]:
        """What the words of the jobs tell them apart by."""
        return settings([job.overrides for job in self.ledger.jobs], self.configurations.value)

    def repeat(self, job: int) -> str:
        """How to have more seeds, where this job is the best."""
        return MORE_SEEDS

    def told_apart(self) -> tuple[list[dict[str, str]], list[str]]:
        """What tells the jobs apart, and the keys of it that their words alone do not tell."""
        return self.configurations.told_apart(self.chosen())

    def is_finished(self, job: Job) -> bool:
        """Whether a job has ended for good, also where the sweep was killed before it could take note."""
        folder = self.folder / str(job.number)
        completed = (read_json(folder / "summary.json") or {}).get("status") == "completed"
        if job.finished and (completed or job.status != "completed"):
            return True
        if not completed:  # also where its folder was lost since
            return False
        from dltrain.run import checkpoint  # which imports torch

        sound = list(map(checkpoint.is_sound, checkpoint.steps(folder / "checkpoints")))
        if not any(sound):
            (folder / "summary.json").unlink()  # killed while it kept its weights alone: it runs once more
            return False
        if all(sound):
            drop_state(folder, self.config)
        self.ledger.end(job, status="completed", code=0, cause="")
        return True


def _status(outcome: Outcome) -> str:
    if outcome.code == 0:
        return "completed"
    if outcome.stopped == "pruned":
        return "pruned"
    if outcome.code == IN_USE or (outcome.code in INTERRUPTED and outcome.stopped in ("", "interrupted")):
        return "interrupted"
    return "diverged" if outcome.code == DIVERGED else "failed"
