"""One writer a run folder."""

import contextlib
import fcntl
import json
import os
import platform
import time
from pathlib import Path

from dltrain.run.folder import RunError, writing

FILE = ".lock"
GLANCES = 3
_held: set[int] = set()


class Lock:
    """The right to write into a run folder, which one process has at a time.

    The kernel takes it back when the process ends, however that happens. Processes forked meanwhile do not share it,
    so that none of them keeps a folder locked.
    """

    def __init__(self) -> None:
        self.descriptor: int | None = None

    def take(self, folder: Path) -> None:
        """Lock a folder, which may be renamed afterwards. Raises RunError (73) that names who has it, WriteError."""
        with writing(folder / FILE):
            descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _try(descriptor)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace")
            os.close(descriptor)
            raise RunError(f"{folder} is in use{_named(holder)}", exit_code=73) from error
        self.descriptor = descriptor
        _held.add(descriptor)
        holder = json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only its owner stays unnamed
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)

    def release(self) -> None:
        """Give the folder back."""
        if self.descriptor is not None:
            _held.discard(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = None

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def held(folder: Path) -> bool:
    """Whether a process is at work in a folder; nothing is written."""
    try:
        descriptor = os.open(folder / FILE, os.O_RDONLY)
    except OSError:  # there is no lock, or it is not ours to see
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _try(descriptor: int) -> None:
    """Lock at once, or a moment later: another process may only have asked whether it is `held`."""
    for _ in range(GLANCES):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _named(holder: str) -> str:
    try:
        facts = json.loads(holder)
        return f" by process {facts['pid']} on {facts['host']} since {facts['since']}"
    except (ValueError, KeyError, TypeError):
        return " by another process"


def _let_go() -> None:
    """In a forked child: the descriptors of its parent's locks are none of its own."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
