"""Several loggers at once, none of which can stop training or hold it up."""

import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

Row = dict[str, Any]
Order = tuple[str, tuple[Any, ...], dict[str, Any]]


class Logger(Protocol):
    """Takes every row of the record. Its constructor raises ValueError where a package or a setting is missing."""

    def start(self, folder: Path, *, name: str, config: dict[str, Any]) -> str | None:
        """Begin, or go on where `folder` holds the beginning of this run; returns where the rows can be seen."""
        ...

    def add(self, row: Row) -> None:
        """Take a row. After a resumption or a rollback its step may be one that was there before."""
        ...

    def close(self, status: str) -> None:
        """Finish; `status` is that of summary.json."""
        ...


class Loggers:
    """A thread a logger, so that a network that is slow or gone holds nothing up.

    The first error of a logger is told in one line, after which that logger is left out. What is to be told waits for
    the next call from the thread that trains, the only one that prints.
    """

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.news: SimpleQueue[str] = SimpleQueue()
        self.say: Callable[[str], object] = self.news.put

    def include(self, name: str, make: Callable[[], Logger]) -> None:
        """Make one more logger. Of errors only those are raised that refuse a setting, with an exit code."""
        try:
            self.workers.append(Worker(name, make(), self.news))
        except Exception as error:
            if hasattr(error, "exit_code"):
                raise
            self.news.put(failure(name, error))

    def start(self, say: Callable[[str], object], folder: Path, *, name: str, config: dict[str, Any]) -> None:
        """Begin all; `say` tells a person a line."""
        self.say = say
        for worker in self.workers:
            worker.start()
            worker.orders.put(("start", (folder,), {"name": name, "config": config}))
        self._tell()

    def add(self, row: Row) -> None:
        """Hand a row to all."""
        self._order("add", dict(row))

    def close(self, status: str, *, patience: float) -> bool:
        """Finish all, waiting so many seconds at most; whether all have finished."""
        self._order("close", status)
        deadline = time.monotonic() + patience
        for worker in self.workers:
            if worker.ident is not None:
                worker.join(max(0.0, deadline - time.monotonic()))
        hanging = [worker.name for worker in self.workers if worker.is_alive()]
        for name in hanging:
            self.news.put(f"note: logger={name} has not finished after {patience:g} s and is left behind")
        self._tell()
        return not hanging

    def _order(self, method: str, *arguments: Any) -> None:
        for worker in self.workers:
            if worker.is_alive():
                worker.orders.put((method, arguments, {}))
        self._tell()

    def _tell(self) -> None:
        while not self.news.empty():
            self.say(self.news.get())


class Worker(Thread):
    """Makes a logger's calls in their order, until it is closed or one raises. It dies with the process."""

    def __init__(self, name: str, logger: Logger, news: "SimpleQueue[str]") -> None:
        super().__init__(name=name, daemon=True)
        self.logger, self.news = logger, news
        self.orders: SimpleQueue[Order] = SimpleQueue()

    def run(self) -> None:
        """Work until the logger is closed."""
        method = ""
        try:
            while method != "close":
                method, arguments, facts = self.orders.get()
                told = getattr(self.logger, method)(*arguments, **facts)
                if told:
                    self.news.put(f"logger  {self.name}: {told}")
        except (Exception, SystemExit) as error:
            self.news.put(failure(self.name, error))


def failure(name: str, error: BaseException) -> str:
    """What is said of a logger that failed."""
    words = " ".join(str(error).split()) or "no reason given"
    return f"note: logger={name} failed and is left out from here on; training goes on: {type(error).__name__}: {words}"
