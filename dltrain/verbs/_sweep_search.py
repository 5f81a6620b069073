"""A sweep whose jobs optuna chooses, one after another."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dltrain.config.compose import compose, compose_all, parse
from dltrain.config.errors import ConfigError
from dltrain.run.folder import read_json
from dltrain.run.lock import Lock
from dltrain.run.record import read_rows
from dltrain.sweep.launcher import Outcome
from dltrain.sweep.ledger import Job, Ledger
from dltrain.sweep.search import Search
from dltrain.verbs._job import Request, job_key
from dltrain.verbs._sweep import Sweep, open_ledger

NO_MORE = {"failed", "diverged"}


class SearchSweep(Sweep):
    """The trials that this sweep asks a study for."""

    good = ("completed", "pruned")

    def __init__(self, ledger: Ledger, search: Search, config: Any, where: dict[str, Any]) -> None:
        super().__init__(ledger, {}, config)
        self.search, self.where = search, where
        for job in ledger.jobs:
            self._compose(job)
        self.settings = [self._chosen(job) for job in ledger.jobs]

    @property
    def total(self) -> int:
        return int(self.search.most)

    def left(self, waiting: Sequence[Job]) -> int:
        for job in self.ledger.jobs:
            if job not in waiting:
                self._tell(job)
        self.search.forget_lost([job.trial for job in self.ledger.jobs])
        return len(waiting) + int(self.search.left())

    def requests(self, waiting: Sequence[Job]) -> Iterator[Request]:
        yield from super().requests(waiting)
        for trial, overrides in self.search.ask():
            composition = compose_all([overrides], **self.where)[0]
            key = str(composition) if isinstance(composition, ConfigError) else job_key(composition)
            job = self.ledger.add(key, overrides, trial=trial)
            self.compositions[key] = composition
            self.settings.append(self._chosen(job))
            yield from self.request(job)

    def look(self, running: list[Any]) -> None:
        for each in running:
            job = self.ledger.jobs[each.job.number]
            rows = read_rows(self.folder / str(job.number))
            if job.trial is not None and self.search.should_prune(job.trial, rows, self.config.trainer.monitor):
                each.stop("pruned", grace_seconds=self.config.trainer.grace_seconds)

    def end(self, job: Job, outcome: Outcome) -> None:
        super().end(job, outcome)
        self._tell(job)

    def _tell(self, job: Job) -> None:
        """Let the study know of a job that has ended for good."""
        if job.trial is None or not (job.finished or job.status in NO_MORE):
            return
        best = (read_json(self.folder / str(job.number) / "summary.json") or {}).get("best")
        value = best["value"] if best and job.status == "completed" else None
        self.search.tell(job.trial, value, pruned=job.status == "pruned")

    def is_finished(self, job: Job) -> bool:
        """As for a grid; a trial that failed has been told of, and is not tried again."""
        return super().is_finished(job) or job.status in NO_MORE

    def _compose(self, job: Job) -> None:
        self.compositions[job.key] = compose_all([job.overrides], **self.where)[0]

    def _chosen(self, job: Job) -> dict[str, str]:
        values = dict(word.split("=", 1) for word in job.overrides)
        return {key: values[key] for key in self.search.space}


def search(words: Sequence[str], *, folder: Path | None = None, **where: Any) -> int:
    """Run the trials of a study; 3 where not every one completed or was pruned.

    Raises ConfigError, RunError and WriteError.
    """
    config = compose([word for word in words if not parse(word).is_sweep_override()], **where).config
    if config.data.val_size == 0:
        raise ConfigError("data.val_size=0: a search needs validation to choose by")
    with Lock() as lock:
        ledger = open_ledger(config, {"words": list(words), **where}, lock, folder)
        asked = Search(words, config, ledger.folder, identity=ledger.command["id"])
        return SearchSweep(ledger, asked, config, where).go()
