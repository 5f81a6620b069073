"""Deleting runs and sweeps so that none is ever seen half deleted."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dltrain.run.folder import RunError, writing
from dltrain.run.lock import Lock, held

PREFIX = ".deleting~"  # no run's name and no draft of one has a ~


def size(folder: Path) -> int:
    """The bytes of all files in a folder; what links lead to is not counted."""
    paths = (Path(parent, file) for parent, _, files in os.walk(folder) for file in files)
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            total += path.lstat().st_size
    return total


def delete(folder: Path, jobs: Sequence[Path] = ()) -> None:
    """Delete a run, or a sweep with its jobs: hidden by one rename first, then removed.

    Raises RunError (73) where a process is at work there, and WriteError; then all of it is still there.
    """
    with Lock() as lock:
        lock.take(folder)
        hidden = _hide(folder, jobs)
    remove(hidden)


def _hide(folder: Path, jobs: Sequence[Path]) -> Path:
    if any(held(job) for job in jobs):
        raise RunError(f"{folder} is in use", exit_code=73)
    with writing(folder):
        hidden = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder.parent))
        try:
            folder.rename(hidden)
        except OSError:
            hidden.rmdir()
            raise
        if any(held(hidden / job.name) for job in jobs):  # since a moment ago
            hidden.rename(folder)
            raise RunError(f"{folder} is in use", exit_code=73)
    return hidden


def leftovers(outputs: Path) -> list[Path]:
    """What deletions that were cut short have hidden."""
    return [path for kind in ("runs", "sweeps") for path in sorted((outputs / kind).glob(f"{PREFIX}*"))]


def remove(hidden: Path) -> None:
    """Remove a hidden folder, perhaps while another process does. Raises WriteError."""
    with writing(hidden):
        while hidden.exists():
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(hidden)
