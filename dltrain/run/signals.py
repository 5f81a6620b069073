"""Signals that ask a run to stop."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}
heard: list[int] = []  # the exit code of a signal that came before a run had begun
asked: list[int] = []  # that of the first signal of all
_once = False
_at_once = False
_decided = threading.Event()
_ended = threading.Event()
WAITING = {*EXIT_CODES, signal.SIGHUP}


class Interrupted(BaseException):
    """A signal asked to stop; like KeyboardInterrupt it is none of the errors that others catch."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("interrupted")
        self.exit_code = exit_code


@contextmanager
def stoppable() -> Iterator[None]:
    """The first signal raises Interrupted, since there is nothing to save yet; a second one leaves at once.

    During an import the first one leaves, too: an exception within a library's initialization may abort the process.
    Whatever else swallows the exception or makes another of it, `heard` tells of it all the same.
    """
    heard.clear()
    asked.clear()

    def stop(number: int, frame: FrameType | None) -> None:
        if asked and _once:
            return
        code = EXIT_CODES[signal.Signals(number)]
        if not heard and _importing(frame) and os.environ.get("RANK", "0") == "0":
            os.write(2, b"dltrain: interrupted\n")
        if heard or _importing(frame):
            leave(code)
        heard.append(code)
        asked.append(code)
        raise Interrupted(code)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in EXIT_CODES}
    try:
        yield
    finally:
        _put_back(before)


@contextmanager
def signalled(received: list[int], *, grace_seconds: float, echo_seconds: float = 0.0) -> Iterator[None]:
    """The first signal that asks to stop adds its exit code to `received`.

    A second one leaves at once, as does the end of the grace: what is on disk is whole at every instant. What comes
    within `echo_seconds` is the first one once more, as where it goes to a process and to its group.
    """
    timers: list[threading.Timer] = []
    deaf_until = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal deaf_until
        code = EXIT_CODES[signal.Signals(number)]
        if received:
            if not _once and time.monotonic() >= deaf_until:
                leave(code)
        else:
            deaf_until = time.monotonic() + echo_seconds
            received.append(code)
            asked.append(code)
            timers.append(threading.Timer(grace_seconds, leave, [code]))
            timers[0].daemon = True
            timers[0].start()

    before = {number: signal.signal(number, note) for number in EXIT_CODES}
    received.extend(heard)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        _put_back(before)


def hear_once() -> None:
    """Heed the first signal alone: whoever started this process decides how long it may take to save."""
    global _once
    _once = True


def heed_no_more() -> None:
    """Let how this process ends be decided: what asks it to stop is only noted, in the handlers' place until then."""
    _decided.set()
    for number in EXIT_CODES:
        signal.signal(number, lambda *_: _ended.set())


def wait_to_be_ended(*, seconds: float) -> bool:
    """Whether a signal asked this process to stop or, after `heed_no_more`, does within so many seconds."""
    return bool(asked) or _ended.wait(seconds)


def _put_back(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        if not _decided.is_set():
            signal.signal(number, handler or signal.SIG_DFL)


def end_with_the_parent(patience: float) -> None:
    """Have this process save and end once the one that started it is gone, or just end where it is deaf so long."""
    parent, number = multiprocessing.parent_process(), os.getppid()

    def watch() -> None:
        if parent is not None:
            parent.join()
        while os.getppid() == number and parent is None:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
        leave(EXIT_CODES[signal.SIGTERM])

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def unheard() -> Iterator[None]:
    """Requests to stop wait, also in the processes that are started meanwhile: there until they are `listening`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def listening() -> Iterator[None]:
    """Hear what waited and what comes, in a process that was started `unheard`; a hangup is not for it."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported in this frame or one that called it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def ignore_signals() -> None:
    """No longer hear a request to stop."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)


def end_at_once() -> None:
    """Have this process end as soon as its exit code is known, whatever a thread of some library still waits for."""
    global _at_once
    _at_once = True


def end(code: int) -> None:
    """End this process where that is to be at once."""
    if _at_once:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        leave(code)


def leave(code: int) -> None:
    """End this process and its children now, without another word."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)
