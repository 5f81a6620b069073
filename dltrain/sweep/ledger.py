"""sweep.jsonl: what a sweep is to run, has begun and has ended; append-only, on the disk before anything acts on it."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltrain.run.folder import RunError, writing

FILE = "sweep.jsonl"
FINISHED = {"completed", "diverged", "pruned"}  # what running once more would not change


@dataclass
class Job:
    """A run of a sweep, in the folder of its number. `key` is the same for the same configuration."""

    number: int
    key: str
    overrides: list[str]
    trial: int | None = None
    attempts: int = 0
    status: str = "waiting"
    cause: str = ""

    @property
    def finished(self) -> bool:
        """Whether it need not be run again."""
        return self.status in FINISHED


@dataclass
class Ledger:
    """The jobs of a sweep by number, the command that asked for them, and whether all of a grid's are `listed`.

    Lines are `{"event": "sweep", "command": {...}}`, `{"event": "job", "job", "key", "overrides", "trial"}`,
    `{"event": "listed"}`, `{"event": "start", "job", "attempt", "time"}` and
    `{"event": "end", "job", "status", "code", "cause", "time"}`.
    """

    folder: Path
    command: dict[str, Any] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    listed: bool = False

    @classmethod
    def create(cls, folder: Path, command: Mapping[str, Any]) -> "Ledger":
        """Begin the record of a sweep. Raises WriteError."""
        ledger = cls(folder, dict(command))
        ledger._append("sweep", command=ledger.command)
        return ledger

    @classmethod
    def read(cls, folder: Path, *, mend: bool = True) -> "Ledger":
        """What was recorded; a last line that a kill cut short is dropped, by `mend` from the file too.

        Raises RunError (66) and WriteError.
        """
        path = folder / FILE
        with writing(path):
            text = path.read_bytes()
            whole = text.rfind(b"\n") + 1
            if mend and whole < len(text):
                os.truncate(path, whole)
        ledger = cls(folder)
        try:
            for line in text[:whole].splitlines():
                ledger._follow(**json.loads(line))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise RunError(f"{path} is damaged: {type(error).__name__}: {error}") from error
        if not ledger.command:
            raise RunError(f"{path} is damaged: it does not say what was to be run")
        return ledger

    def add(self, key: str, overrides: Sequence[str], *, trial: int | None = None) -> Job:
        """A job that is to be run, or the one that is there already with this key. Raises WriteError.

        Where defaults have changed since, the one with the same overrides: what that means for it is its run's to say.
        """
        known = None
        if trial is None:
            same = [job for job in self.jobs if job.key == key]
            same += [job for job in self.jobs if of_the_run(job.overrides) == of_the_run(overrides)]
            known = next(iter(same), None)
        if known is None:
            number = len(self.jobs)
            self._append("job", job=number, key=key, overrides=list(overrides), trial=trial)
            known = self.jobs[number]
        return known

    def end_of_list(self) -> None:
        """All jobs that were asked for are there. Raises WriteError."""
        if not self.listed:
            self._append("listed")

    def start(self, job: Job) -> None:
        """A job is about to begin. Raises WriteError."""
        self._append("start", job=job.number, attempt=job.attempts + 1, time=_now())

    def end(self, job: Job, *, status: str, code: int, cause: str) -> None:
        """A job has ended. Raises WriteError."""
        self._append("end", job=job.number, status=status, code=code, cause=cause, time=_now())

    def _append(self, event: str, **facts: Any) -> None:
        path = self.folder / FILE
        with writing(path), path.open("ab", buffering=0) as file:
            file.write((json.dumps({"event": event, **facts}) + "\n").encode())
            os.fsync(file.fileno())
        self._follow(event, **facts)

    def _follow(self, event: str, *, job: int = -1, **facts: Any) -> None:
        if event == "sweep":
            self.command = dict(facts["command"])
        elif event == "job":
            if job != len(self.jobs):
                raise ValueError(f"job {job} where job {len(self.jobs)} comes next")
            self.listed = False
            self.jobs.append(Job(job, facts["key"], facts["overrides"], facts["trial"]))
        elif event == "listed":
            self.listed = True
        elif event == "start":
            self.jobs[job].attempts, self.jobs[job].status = facts["attempt"], "interrupted"
        elif event == "end":
            self.jobs[job].status, self.jobs[job].cause = facts["status"], facts["cause"]


def find_sweep(name: str | Path, outputs_dir: str | Path) -> Path | None:
    """The folder of a sweep, from a path or a name below the outputs directory; None where it is none."""
    folders = (Path(name), Path(outputs_dir) / "sweeps" / name)
    return next((folder for folder in folders if (folder / FILE).is_file()), None)


def of_the_run(overrides: Sequence[str]) -> list[str]:
    """Those that say what is run, not where or how the sweep does it."""
    return [word for word in overrides if not word.startswith(("sweep.", "hydra/", "name=", "outputs_dir="))]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")
