"""Running jobs at the same time, each in a process of its own, so that none can take another down."""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from dltrain.run.signals import EXIT_CODES, Interrupted, end_with_the_parent, hear_once, listening, stoppable, unheard
from dltrain.sweep.slots import Slot

TICK_SECONDS, KILL_AFTER_SECONDS = 0.2, 5.0
MOST_OF_A_MESSAGE = 4000  # what a pipe takes at once, though nobody reads it before the job has ended
SAYS = "dltrain: "  # before the line that says why a process ended
LOST = 255  # what multiprocessing says of a process whose server died
Work = Callable[[Any, Slot], int]


@dataclass(frozen=True)
class Outcome:
    """How a job's process ended: its exit code (negative: the signal that killed it), and why where it says."""

    code: int
    message: str = ""
    stopped: str = ""

    @property
    def words(self) -> str:
        """The cause of a failure."""
        if self.stopped:
            return self.stopped
        if self.code < 0:
            name = signal.Signals(-self.code).name
            return f"killed by {name}" + (", as is done where memory runs out" if name == "SIGKILL" else "")
        return self.message or f"exit code {self.code}"


@dataclass
class Running:
    """A job under way."""

    job: Any
    slot: Slot
    process: Any
    messages: Connection
    started: float
    stopped: str = ""
    kill_at: float = float("inf")

    def stop(self, why: str, *, grace_seconds: float) -> None:
        """Ask it to save and end, for a reason; one that does not is killed after a while."""
        if not self.stopped:
            self.stopped, self.kill_at = why, time.monotonic() + grace_seconds + KILL_AFTER_SECONDS
            self.process.terminate()

    def outcome(self) -> Outcome:
        """How the process ended, once it did."""
        message = ""
        if self.messages.poll():
            try:
                message = str(self.messages.recv())
            except EOFError:
                message = ""
        self.messages.close()
        self.process.join()
        code = int(self.process.exitcode)
        if code == LOST and not self.stopped:
            return Outcome(_end(self.process.pid), "its server died", self.stopped)
        return Outcome(code, message, self.stopped)


class Launcher:
    """Forks jobs from a server that has imported the modules `preload` once, and has run nothing with torch.

    `work(job, slot)` is called in the new process and returns its exit code. Its prints go nowhere, since a run has its
    own log; its errors to the file `errors(job)`, which is kept where it failed with some. A job that takes longer than
    `timeout` seconds is stopped.
    """

    def __init__(
        self,
        work: Work,
        places: Sequence[Slot],
        *,
        errors: Callable[[Any], Path],
        preload: Sequence[str] = (),
        timeout: float | None = None,
        grace_seconds: float = 20.0,
    ) -> None:
        self.work, self.free, self.errors = work, list(places), errors
        self.timeout, self.grace_seconds = timeout or float("inf"), grace_seconds
        self.running: list[Running] = []
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))

    def run(
        self, jobs: Iterable[Any], *, received: Sequence[int] = (), look: Callable[[list[Running]], None] | None = None
    ) -> Iterator[tuple[Any, Outcome]]:
        """Each job and its outcome, as they end; the next job is asked for when there is a place for it.

        Once `received` holds a signal's exit code, no job begins any more and those under way are asked to save and
        end. `look` sees those under way several times a second.
        """
        waiting = iter(jobs)
        try:
            while True:
                while self.free and not received and (job := next(waiting, None)) is not None:
                    self._start(job)
                if not self.running:
                    return
                wait([each.process.sentinel for each in self.running], TICK_SECONDS)
                if received:
                    self._stop_all()
                for ended in [each for each in self.running if each.process.exitcode is not None]:
                    self.running.remove(ended)
                    self.free.append(ended.slot)
                    outcome = ended.outcome()
                    errors = self.errors(ended.job)
                    outcome = replace(outcome, message=outcome.message or said(errors))
                    if outcome.code == 0 or not errors.stat().st_size:
                        errors.unlink()
                    yield ended.job, outcome
                self._hold_to_time()
                if look:
                    look(self.running)
        finally:  # where whoever asked for the jobs failed, they save before they end
            self._stop_all()
            for each in self.running:
                each.process.join(self.grace_seconds + KILL_AFTER_SECONDS)
                each.process.kill()
                each.process.join()

    def _start(self, job: Any) -> None:
        slot = self.free.pop(0)
        ours, theirs = self.context.Pipe(duplex=False)
        errors = self.errors(job)
        errors.write_bytes(b"")
        process = self.context.Process(
            target=_child,
            args=(theirs, errors.resolve(), self.work, job, slot, self.grace_seconds + KILL_AFTER_SECONDS),
        )
        start_server()
        process.start()
        theirs.close()
        self.running.append(Running(job, slot, process, ours, time.monotonic()))

    def _stop_all(self) -> None:
        for each in self.running:
            each.stop("interrupted", grace_seconds=self.grace_seconds)

    def _hold_to_time(self) -> None:
        now = time.monotonic()
        for each in self.running:
            if now - each.started > self.timeout:
                each.stop(f"timeout: no end within {self.timeout:g} s", grace_seconds=self.grace_seconds)
            if now > each.kill_at:
                each.process.kill()


def said(errors: Path) -> str:
    """Why the ranks of a job have ended, in the words of the first of them that said so; "" where none did."""
    lines = errors.read_text(errors="replace").splitlines()
    return next((line.removeprefix(SAYS) for line in lines if line.startswith(SAYS)), "")


def start_server() -> None:
    """Start what jobs are forked from, where it is not there: deaf, since signals to all are the launcher's to pass on.

    Jobs are deaf, too, until they can save.
    """
    resource_tracker.ensure_running()  # which would listen again where the server starts it
    with unheard():
        forkserver.ensure_running()


def _child(connection: Connection, errors: Path, work: Work, job: Any, slot: Slot, patience: float) -> None:
    os.setpgid(0, 0)  # Ctrl-C goes to the terminal's whole group: the parent alone passes it on
    hear_once()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND), sys.stderr.fileno())
    faulthandler.enable()
    if slot.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
    end_with_the_parent(patience)
    try:
        with stoppable(), listening():
            code = work(job, slot)
    except Interrupted as interruption:
        code = interruption.exit_code
    except Exception as error:
        code, kind = getattr(error, "exit_code", 1), ""
        if not hasattr(error, "exit_code"):  # none of those whose one line says it all
            traceback.print_exc()
            kind = f"{type(error).__name__}: "
        connection.send(f"{kind}{' '.join(str(error).split())}"[:MOST_OF_A_MESSAGE])
    connection.close()
    sys.exit(code)


def _end(process: int, *, patience: float = 20.0) -> int:
    """Have a process that is no child of ours save and end, however long that takes up to a limit; its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            os.kill(process, 0)
            time.sleep(TICK_SECONDS)
        os.kill(process, signal.SIGKILL)
    return EXIT_CODES[signal.SIGTERM]
