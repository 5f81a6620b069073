"""Signals that ask a run to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}


@contextmanager
def signalled() -> Iterator[list[int]]:
    """Collects the exit code of the first signal that asks to stop; a second one stops at once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in EXIT_CODES}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(EXIT_CODES[signal.Signals(number)])
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in EXIT_CODES:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
