"""A sweep whose jobs optuna chooses, one after another."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dltrain.config.compose import Composition, compose_all, parse
from dltrain.config.errors import ConfigError
from dltrain.run.folder import read_json
from dltrain.run.lock import Lock
from dltrain.run.record import read_rows
from dltrain.sweep.grid import samples, written
from dltrain.sweep.launcher import Outcome
from dltrain.sweep.ledger import Job, Ledger, of_the_run
from dltrain.sweep.search import Search
from dltrain.sweep.summary import label
from dltrain.verbs._composing import asking, check_shared, compose_jobs, say_asked
from dltrain.verbs._job import Request, job_key
from dltrain.verbs._sweep import Sweep
from dltrain.verbs._sweep_start import begun, check_launcher, open_ledger

NO_MORE = {"failed", "diverged"}


class SearchSweep(Sweep):
    """The trials that this sweep asks a study for."""

    good = ("completed", "pruned")

    def __init__(
        self, ledger: Ledger, search: Search, config: Any, where: dict[str, Any], *, allow_changes: bool
    ) -> None:
        self.search, self.where = search, where
        composed = compose_jobs([job.overrides for job in ledger.jobs], **where)
        pairs = zip(ledger.jobs, composed, strict=True)
        known = {job.number: begun(ledger, job, config) or each for job, each in pairs}
        super().__init__(ledger, known, config, allow_changes=allow_changes)

    def go(self) -> int:
        code = super().go()
        if self.search.shared:
            here, elsewhere = len(self.ledger.jobs), self.search.elsewhere
            self.console.say(f"of this study {here} trials are this sweep's, {elsewhere} are of others")
        if self.done == len(self.ledger.jobs) and self.search.is_exhausted:
            self.console.say("every combination has been tried: the search has ended")
        return code

    @property
    def total(self) -> int:
        return self.search.total

    def left(self, waiting: Sequence[Job]) -> int:
        for job in self.ledger.jobs:
            if job not in waiting:
                self._tell(job)
        return len(waiting) + int(self.search.left())

    def requests(self, waiting: Sequence[Job]) -> Iterator[Request]:
        yield from super().requests(waiting)
        for trial, overrides in self.search.ask():
            composition = compose_all([overrides], **self.where)[0]
            key = str(composition) if isinstance(composition, ConfigError) else job_key(composition)
            chosen = self._values(overrides)
            if isinstance(composition, Composition) and (earlier := self.search.same_as(trial, key)) is not None:
                self.console.say(f"{label(chosen)}  was tried: the result of trial {earlier} counts once more")
                continue
            job = self.ledger.add(key, overrides, trial=trial)
            self.compositions[job.number] = composition
            self.settings.append(chosen)
            yield from self.request(job)

    def look(self, running: list[Any]) -> None:
        self.search.show_life()
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

    def repeat(self, job: int) -> str:
        words = of_the_run(self.ledger.jobs[job].overrides)
        kept = [word for word in words if parse(word).key_or_group not in ("seed", "sweep.search")]
        folders = [part for folder in self.where["config_dirs"] for part in ("--config-dir", folder)]
        return f"repeat the best: {shlex.join(['dltrain', '-m', *kept, 'seed=1,2,3', *folders])}"

    def chosen(self) -> list[dict[str, str]]:
        return [self._values(job.overrides) for job in self.ledger.jobs]

    def _values(self, overrides: Sequence[str]) -> dict[str, str]:
        values = written(overrides)
        return {key: values[key] for key in self.search.space}


def search(words: Sequence[str], *, folder: Path | None = None, allow_changes: bool = False, **where: Any) -> int:
    """Run the trials of a study; 3 where not every one completed or was pruned.

    What a preset asks for is chosen too. Raises ConfigError, RunError and WriteError.
    """
    sample, given = _sample(words, where), list(words)
    if sample.sweep:
        check_shared(sample.sweep)
        say_asked({asking(sample): sample.sweep})
        given = [*sample.sweep, *words]
        sample = _sample(given, where)
    config = sample.config
    for word in given:
        if parse(word).key_or_group == "seed" and parse(word).is_sweep_override():
            raise ConfigError(f"{word}: a search would choose the luckiest; give one, and repeat the best afterwards")
    if config.data.val_size == 0:
        raise ConfigError("data.val_size=0: a search needs validation to choose by")
    asked = Search(given, config)
    check_launcher([config])
    with Lock() as lock:
        ledger = open_ledger(config, {"words": list(words), **where}, lock, folder)
        asked.begin(ledger.folder, identity=ledger.command["id"], jobs=[job.trial for job in ledger.jobs])
        return SearchSweep(ledger, asked, config, where, allow_changes=allow_changes).go()


def _sample(words: Sequence[str], where: dict[str, Any]) -> Composition:
    """One of the jobs with most ranks that the words may come to.

    Raises ConfigError where a name is unknown, or all are refused.
    """
    compositions = compose_all(samples(words), **where)
    accepted = [each for each in compositions if isinstance(each, Composition)]
    if not accepted:
        assert isinstance(compositions[0], ConfigError)
        raise compositions[0]
    return max(accepted, key=lambda each: int(each.config.device.count))
