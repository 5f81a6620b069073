"""One job of a sweep, in a process of its own."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dltrain.config import stored
from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.config.tree import container
from dltrain.run.folder import RunError
from dltrain.run.lock import Lock
from dltrain.sweep.launcher import start_server
from dltrain.sweep.slots import Slot
from dltrain.verbs._warm import DATA

IN_USE = 73
NO_PART_OF_A_JOB = ("name", "outputs_dir", "sweep")
PRELOAD = (
    "dltrain.build",
    "dltrain.report.run_page",
    "dltrain.report.run_pictures",
    "dltrain.verbs._start",
    "dltrain.verbs._warm",
)


@dataclass(frozen=True)
class Request:
    """What to run in which folder of a sweep; `number` is that of the ledger."""

    number: int
    folder: Path
    composition: Composition
    allow_changes: bool = False

    @property
    def run_folder(self) -> Path:
        """The folder of the run."""
        return self.folder / str(self.number)


def run_job(request: Request, slot: Slot) -> int:
    """Train a job, or go on with it; returns the exit code.

    Of a completed one the optimizer's state is dropped where the sweep keeps weights alone.
    """
    composition = fitted(request.composition, begun_with(request.run_folder) or slot)
    patience = time.monotonic() + 2 * composition.config.trainer.grace_seconds
    while True:
        try:
            code = _train(composition, request)
            break
        except RunError as error:  # one that lost its sweep may still be saving
            if error.exit_code != IN_USE or time.monotonic() > patience:
                raise
            time.sleep(0.1)
    if code == 0:
        drop_state(request.run_folder, composition.config)
    return code


def drop_state(folder: Path, config: Any) -> None:
    """Drop the optimizer's state of a completed job, where the sweep keeps weights alone. Raises WriteError."""
    if config.sweep.keep == "weights":
        from dltrain.run.saver import keep_weights

        with Lock() as lock:
            lock.take(folder)
            keep_weights(folder)


def begun_with(folder: Path) -> Slot | None:
    """The threads that a run began with, which it keeps, so that its bits stay the same."""
    path = folder / "config.yaml"
    return Slot(OmegaConf.load(path).device.threads) if path.is_file() else None


def _train(composition: Composition, request: Request) -> int:
    from dltrain.verbs._start import train

    return train(composition, parent=request.folder, name=str(request.number), allow_changes=request.allow_changes)


def as_begun(folder: Path, config: Any) -> Composition | ConfigError | None:
    """A job's own configuration, with the `sweep` of another one; None where it has not begun."""
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    try:
        own = stored.read(path)
    except ConfigError as error:
        return error
    return _changed(own, {**container(own.config), "sweep": container(config)["sweep"]})


def job_key(composition: Composition) -> str:
    """The same for the same configuration, whatever the folder."""
    plain = {key: value for key, value in container(composition.config).items() if key not in NO_PART_OF_A_JOB}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@contextmanager
def preloaded(compositions: Iterable[Composition | ConfigError]) -> Iterator[tuple[str, ...]]:
    """Start the server of the launcher that is made within, holding the jobs' data; yields the modules to import."""
    nodes = {
        json.dumps(container(each.config)["data"], sort_keys=True): None
        for each in compositions
        if isinstance(each, Composition)
    }
    os.environ[DATA] = f"[{','.join(nodes)}]"
    try:
        yield PRELOAD
        start_server()
    finally:
        del os.environ[DATA]


def fitted(composition: Composition, slot: Slot) -> Composition:
    """The composition with the threads of its place where it names none, so that the run's own config tells them."""
    if slot.threads is None or composition.config.device.threads is not None:
        return composition
    plain: dict[str, Any] = container(composition.config)
    plain["device"]["threads"] = slot.threads
    return _changed(composition, plain)


def _changed(composition: Composition, plain: dict[str, Any]) -> Composition:
    config = OmegaConf.create(plain)
    OmegaConf.set_readonly(config, True)
    return replace(composition, config=config, sweep=())
