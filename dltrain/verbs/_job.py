"""One job of a sweep, in a process of its own."""

import hashlib
import json
import os
import time
import traceback
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
from dltrain.verbs import _launch
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
    composition = fitted(request.composition, slot)
    patience = time.monotonic() + 2 * composition.config.trainer.grace_seconds
    while True:
        try:
            code = _train(composition, request)
        except RunError as error:
            if error.exit_code != IN_USE or time.monotonic() > patience:
                raise
            code = IN_USE
        if code != IN_USE or time.monotonic() > patience:
            break
        time.sleep(0.1)  # one that lost its sweep may still be saving
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


def _train(composition: Composition, request: Request) -> int:
    where = {"parent": request.folder, "name": str(request.number), "allow_changes": request.allow_changes}
    return _launch.run_ranks(composition, _telling, forked=True, **where)


def _telling(composition: Composition, **where: Any) -> int:
    """Train, on one of the job's ranks or the only one; of an error that was not foreseen tell where it was."""
    from dltrain.verbs._start import train

    try:
        return train(composition, **where)
    except Exception as error:
        if not hasattr(error, "exit_code") and not getattr(error, "is_told", False):
            traceback.print_exc()
        raise


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
    configs = [each.config for each in compositions if isinstance(each, Composition)]
    nodes = dict.fromkeys(json.dumps(container(config)["data"], sort_keys=True) for config in configs)
    several = any(config.device.count > 1 for config in configs)
    os.environ[DATA] = f"[{','.join(nodes)}]"
    try:
        yield (*PRELOAD, *_launch.PRELOAD) if several else PRELOAD
        start_server()
    finally:
        del os.environ[DATA]


def fitted(composition: Composition, slot: Slot) -> Composition:
    """The composition with a rank's part of its place's threads where it names none: its own config tells them."""
    if slot.threads is None or composition.config.device.threads is not None:
        return composition
    plain: dict[str, Any] = container(composition.config)
    plain["device"]["threads"] = max(1, slot.threads // composition.config.device.count)
    return _changed(composition, plain)


def _changed(composition: Composition, plain: dict[str, Any]) -> Composition:
    config = OmegaConf.create(plain)
    OmegaConf.set_readonly(config, True)
    return replace(composition, config=config, sweep=())
