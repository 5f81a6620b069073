"""How several ranks end together: the one that fails says why, the others leave without a word."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed import DistError

from dltrain.engine import RanksApart, Roll
from dltrain.run.signals import Interrupted, heard, heed_no_more, leave, wait_to_be_ended
from dltrain.verbs._guarded import UNFORESEEN, say, worded

FIRST_WORD_SECONDS = 3.0  # in which the first rank says what others found, too
AGENT_SECONDS = 10.0  # in which torchrun's agent sees which rank failed, and ends those that lost it
SILENCE_SECONDS = 20.0  # in which the store answers, or never: who keeps it may be stopped


@contextmanager
def parting(roll: Roll | None) -> Iterator[None]:
    """End as one of several: from here on a signal changes nothing, and what another rank says is not said again.

    A rank that lost another leaves after it, so that the exit code of all is that of the one that failed.
    """
    if roll is None:
        yield
        return
    try:
        yield
    except (Exception, Interrupted) as error:
        apart = cause(roll, error)
        if isinstance(apart, RanksApart) and not apart.hangs:
            apart.is_told = wait_to_be_ended(seconds=AGENT_SECONDS)
        if apart is error:
            raise
        raise apart from error
    heed_no_more()


def cause(roll: Roll | None, error: BaseException) -> BaseException:
    """What ends this rank: its own error, of which the others learn, or that it lost one of them."""
    if roll is None:
        return error
    heed_no_more()
    if hasattr(error, "is_told"):
        return error
    unanswered = threading.Timer(SILENCE_SECONDS, _leave_alone)
    unanswered.daemon = True
    unanswered.start()
    if heard and not isinstance(error, Interrupted):
        error = Interrupted(heard[0])
    try:
        if isinstance(error, Exception) and (apart := roll.why(error)):
            return apart
        message, _ = worded(error)
        roll.sign("ended", message)
        is_first = roll.rank == 0 or roll.word("ended", 0, within=FIRST_WORD_SECONDS) != message
        error.is_told = not is_first  # type: ignore[attr-defined]
        return error
    except DistError:
        return error if hasattr(error, "exit_code") else RanksApart("lost the process that keeps the ranks' store")
    finally:
        unanswered.cancel()


def _leave_alone() -> None:
    leave(say("the other ranks do not answer", UNFORESEEN))
