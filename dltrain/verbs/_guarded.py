"""Whatever ends a piece of work becomes an exit code and one line."""

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from dltrain.run.signals import EXIT_CODES, Interrupted, heard, stoppable

UNFORESEEN, OUT_OF_MEMORY, CANNOT_WRITE, REFUSED, INTERRUPTED = 1, 71, 74, 78, 130
LACKING_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")  # as engine/memory.py
COMMON = {REFUSED, *EXIT_CODES.values()}
WRITING_FAILS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def guarded(work: Callable[[], int], *, debug: bool = False) -> int:
    """Do some work and return its exit code; whatever goes wrong is said in one line, to `debug` with where."""
    try:
        with stoppable():
            return work()
    except (KeyboardInterrupt, Interrupted) as interruption:
        code = getattr(interruption, "exit_code", INTERRUPTED)
        return code if _is_known(interruption, code) else say("interrupted", code)
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if heard:  # and something made another error of it
            return say("interrupted", heard[0])
        message, code = worded(error)
        if _is_known(error, code):
            return code
        if debug:
            traceback.print_exc()
        return say(message, code)


def worded(error: BaseException) -> tuple[str, int]:
    """One line and the exit code of an error; those of ours carry both."""
    message = " ".join(str(error).split())
    code: Any = getattr(error, "exit_code", None)
    if code is not None:
        return message, code
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in message for words in LACKING_MEMORY)
    ):
        return "out of memory: try a smaller data.batch_size, or trainer.microbatch", OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in WRITING_FAILS:
        where = f" {error.filename}" if error.filename else ""
        return f"cannot write{where}: {error.strerror}", CANNOT_WRITE
    if f"(os error {errno.ENOSPC})" in message:  # as safetensors says it
        return f"cannot write: {message}", CANNOT_WRITE
    first = " ".join(str(error).strip().split("\n")[0].split())
    return f"unforeseen {type(error).__name__}: {first} (--debug shows where)", UNFORESEEN


def _is_known(error: BaseException, code: int) -> bool:
    """Whether another rank says it: it told this one or, where they have not met, the first of a node."""
    first_here = os.environ.get("LOCAL_RANK", _rank()) == "0"
    return bool(getattr(error, "is_told", code in COMMON and not first_here))


def _rank() -> str:
    """The number of this one of the processes that torchrun has started."""
    return os.environ.get("RANK", "0")


def say(message: str, code: int) -> int:
    """Print a line about what ended the work, with the rank where there are others; returns the code."""
    with contextlib.suppress(BrokenPipeError):
        where = "" if (rank := _rank()) == "0" else f"rank {rank}: "
        print(f"dltrain: {where}{message}", file=sys.stderr)
    return code
