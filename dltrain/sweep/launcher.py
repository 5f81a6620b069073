"""Running each job in a process of its own, so that none can take another down."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from dltrain.run.signals import Interrupted, stoppable

Job = Callable[..., int]


@dataclass(frozen=True)
class Outcome:
    """How a job's process ended: its exit code (negative: the signal that killed it), and why where it says."""

    code: int
    message: str

    @property
    def words(self) -> str:
        """The cause of a failure."""
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        return self.message or f"exit code {self.code}"


class Launcher:
    """Forks jobs from a server that has imported torch once, and has run nothing with it."""

    def __init__(self, *, preload: Sequence[str] = ("dltrain.build", "dltrain.report.curves")) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))

    def run(self, job: Job, *arguments: Any) -> Outcome:
        """Run `job(*arguments)` to its end. Its prints go nowhere: a run has its own log.

        A request to stop is passed on: the job saves and ends. A second one ends it at once.
        """
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_child, args=(theirs, job, arguments))
        try:
            process.start()
            theirs.close()
            return _outcome(process, ours)
        except (KeyboardInterrupt, Interrupted) as stop:
            if process.pid is not None:
                process.terminate()
                _outcome(process, ours)
            return Outcome(getattr(stop, "exit_code", 130), "interrupted")
        finally:
            if process.pid is not None:
                process.kill()
                process.join()


def _outcome(process: Any, messages: Connection) -> Outcome:
    """Wait for a job's end."""
    try:
        message = str(messages.recv())
    except EOFError:
        message = ""
    process.join()
    return Outcome(process.exitcode if process.exitcode is not None else 1, message)


def _child(connection: Connection, job: Job, arguments: tuple[Any, ...]) -> None:
    os.setpgid(0, 0)  # Ctrl-C goes to the terminal's whole group: the parent alone passes it on
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    try:
        with stoppable():
            code = job(*arguments)
    except Interrupted as interruption:
        code = interruption.exit_code
    except Exception as error:
        code = getattr(error, "exit_code", 1)
        kind = "" if hasattr(error, "exit_code") else f"{type(error).__name__}: "
        connection.send(f"{kind}{' '.join(str(error).split())}")
    connection.close()
    sys.exit(code)
