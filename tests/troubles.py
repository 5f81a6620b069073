"""Jobs that end in one of several ways; nothing is imported that takes long."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def end(how: str, slot: Any) -> int:
    """A job that ends in one of several ways."""
    if how == "raise":
        raise ValueError("on purpose")
    if how == "long":
        raise ValueError("x" * 10**6)
    if how == "exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(1000)
    if how == "deaf":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(1000)
    return 0


def tell(path: str, slot: Any) -> int:
    """A deaf job that writes its process into a file."""
    Path(path).write_text(str(os.getpid()))
    return end("deaf", slot)
