"""From composed jobs to a sweep under way: in a new folder, or in the one of a sweep that is there already."""

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dltrain.config import stored
from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.run.folder import RunError, create, read_json
from dltrain.run.lock import Lock
from dltrain.sweep.cluster import check
from dltrain.sweep.ledger import FILE, Job, Ledger
from dltrain.sweep.slots import slots
from dltrain.verbs._composing import compose_jobs
from dltrain.verbs._job import as_begun, job_key
from dltrain.verbs._sweep import Sweep


def sweep(
    jobs: Sequence[Sequence[str]],
    compositions: Sequence[Composition | ConfigError],
    *,
    folder: Path | None = None,
    allow_changes: bool = False,
    **command: Any,
) -> int:
    """Run all jobs, given by their overrides and composed; 3 where not every one completed.

    In a folder of a sweep that is there already, also by `sweep.resume` or `name`, what has finished is not run again.
    `command` is kept, to make the same jobs again. Raises ConfigError where all are refused, RunError and WriteError.
    """
    accepted = [each for each in compositions if isinstance(each, Composition)]
    if not accepted:
        refusal = compositions[0]
        assert isinstance(refusal, ConfigError)
        raise refusal
    config = accepted[0].config
    check_launcher([each.config for each in accepted])
    with Lock() as lock:
        ledger = open_ledger(config, command, lock, folder)
        known: dict[int, Composition | ConfigError] = {}
        changed: set[int] = set()
        for job, composition in zip(jobs, compositions, strict=True):
            key = job_key(composition) if isinstance(composition, Composition) else " ".join(job)
            added = ledger.add(key, job)
            known[added.number] = begun(ledger, added, config) or composition
            if added.key != key:
                changed.add(added.number)
        ledger.end_of_list()
        _say_changed(len(changed), "they keep what they began with")
        return Sweep(ledger, known, config, allow_changes=allow_changes).go()


def go_on_with(folder: Path, overrides: Sequence[str], *, allow_changes: bool) -> int:
    """Run what has not finished of a grid, by its ledger alone; `overrides` are of its `sweep`.

    A job that has begun goes on with its own configuration. Raises ConfigError, RunError and WriteError.
    """
    with Lock() as lock:
        lock.take(folder)
        ledger = Ledger.read(folder)
        where: dict[str, Any] = {key: value for key, value in ledger.command.items() if key not in ("words", "id")}
        new = [job for job in ledger.jobs if not (folder / str(job.number) / "config.yaml").is_file()]
        meant = _composed([[*job.overrides, *overrides] for job in new], where)
        composed = {job.number: each for job, each in zip(new, meant, strict=True)}
        config = _config_of(ledger, composed, overrides)
        own = {job.number: own for job in ledger.jobs if (own := begun(ledger, job, config))}
        known = [*composed.values(), *own.values()]
        check_launcher([config, *(each.config for each in known if isinstance(each, Composition))])
        keys = {number: job_key(each) for number, each in composed.items() if isinstance(each, Composition)}
        changed = sum(ledger.jobs[number].key != key for number, key in keys.items())
        _say_changed(changed, "they begin with those of now")
        return Sweep(ledger, {**composed, **own}, config, allow_changes=allow_changes).go()


def begun(ledger: Ledger, job: Job, config: Any) -> Composition | ConfigError | None:
    """A job's own configuration where it has begun and is to go on."""
    folder = ledger.folder / str(job.number)
    completed = (read_json(folder / "summary.json") or {}).get("status") == "completed"
    return None if job.finished and (completed or job.status != "completed") else as_begun(folder, config)


def _composed(jobs: Sequence[Sequence[str]], where: Mapping[str, Any]) -> list[Composition | ConfigError]:
    """Jobs that have not begun; where what they are made of is gone, all of them are refused."""
    try:
        return compose_jobs(jobs, **where)
    except ConfigError as error:
        return [error] * len(jobs)


def _config_of(
    ledger: Ledger, composed: Mapping[int, Composition | ConfigError], overrides: Sequence[str]
) -> DictConfig:
    """The configuration of the first job that has one, with overrides. Raises ConfigError."""
    for job in ledger.jobs:
        if (path := ledger.folder / str(job.number) / "config.yaml").is_file():
            return stored.read(path, overrides).config
        if isinstance(each := composed[job.number], Composition):
            return each.config
    refusal = next(iter(composed.values()))
    assert isinstance(refusal, ConfigError)
    raise refusal


def _say_changed(count: int, so: str) -> None:
    if count:
        jobs = "1 job" if count == 1 else f"{count} jobs"
        print(f"note: the same words mean other settings now than when {jobs} were listed: {so} (see dltrain diff)")


def check_launcher(configs: Sequence[Any]) -> None:
    """Refuse what cannot be launched for want of a program or of devices, before anything is written.

    Raises ConfigError.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        raise ConfigError("-m under torchrun: a sweep starts the ranks of its jobs itself, device.count of them")
    if configs[0].sweep.launcher != "local":
        check(configs)
    elif any(config.device.count > 1 for config in configs):
        slots(configs)


def open_ledger(config: Any, command: dict[str, Any], lock: Lock, folder: Path | None) -> Ledger:
    """The ledger of the sweep to go on with, or a new one in a folder of its own, locked."""
    parent = Path(config.outputs_dir) / "sweeps"
    named = parent / config.name if config.name and (parent / config.name).exists() else None
    there = folder or (Path(config.sweep.resume) if config.sweep.resume else named)
    if there:
        if not (there / FILE).is_file():
            raise ConfigError(f"{there} is no sweep: it has no {FILE}")
        lock.take(there)
        return Ledger.read(there)

    def fill(draft: Path) -> None:
        lock.take(draft)
        anywhere = [str(Path(folder).resolve()) for folder in command["config_dirs"]]
        Ledger.create(draft, {**command, "config_dirs": anywhere, "id": uuid.uuid4().hex})

    name = config.name or time.strftime("%Y%m%d-%H%M%S")
    try:
        return Ledger.read(create(parent, name, fill, numbered=config.name is None))
    except FileExistsError as error:
        raise RunError(f"name={name}: {error} was made by another sweep just now", exit_code=73) from error
