"""What ranks tell each other apart from their collectives: that they are there, and how they ended."""

import os
import re
import time
from collections.abc import Callable, Collection, Iterable

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

PATIENCE, LEAST_PATIENCE = 6, 60.0  # times the limit of a collective, or seconds, for what one rank does alone
LATE_SECONDS = 2.0  # between the first rank that gives up on another and the last one
POLL_SECONDS = 0.05
LATE, LOST = "\0late", "\0lost"


class RanksApart(Exception):  # noqa: N818
    """A collective failed, since a rank is gone or `hangs`; `is_told` where another rank says so."""

    exit_code = 1
    hangs, is_told = False, False


class Roll:
    """What each rank has signed, in the store through which they met: torchrun's agent keeps it, so that it outlives
    any of them.

    `timeout` are the seconds that a collective may take; `place()` says in words where this rank stands.
    """

    def __init__(self, store: Store, rank: int, size: int, *, timeout: float) -> None:
        self.store, self.rank, self.size, self.timeout = store, rank, size, timeout
        self.signed = PrefixStore("dltrain", store)
        self.place: Callable[[], str] = lambda: "the start"

    @property
    def patience(self) -> float:
        """Seconds that ranks wait where they only wait for another one's work."""
        return max(LEAST_PATIENCE, PATIENCE * self.timeout)

    def sign(self, page: str, word: str = "") -> None:
        """Leave a word, for all to read."""
        self.signed.set(f"{page}/{self.rank}", word)

    def word(self, page: str, rank: int, *, within: float = 0.0) -> str | None:
        """That of a rank, once it is there; None where it is not after so many seconds."""
        return self.signed.get(f"{page}/{rank}").decode() if self._wait(page, [rank], within) else None

    def words(self, page: str, *, within: float) -> dict[int, str]:
        """Those of all ranks or, after so many seconds, of those that have left one."""
        self._wait(page, range(self.size), within)
        found = {rank: self.word(page, rank) for rank in range(self.size)}
        return {rank: word for rank, word in found.items() if word is not None}

    def meet(self) -> None:
        """Wait until all ranks are there. Raises RanksApart."""
        self.sign("here")
        if len(there := self.words("here", within=self.patience)) < self.size:
            raise self._hanging(self._without(there), self.patience, told_by=min(there))

    def why(self, error: Exception) -> RanksApart | None:
        """Which rank made a collective fail, as far as the others know; None where the error is none of these."""
        text = str(error)
        if not isinstance(error, dist.DistError) and "/gloo/" not in text and "pair closure" not in text:
            return None
        waited = re.search(r"waiting (\d+)ms", text)
        seconds = int(waited[1]) / 1000 if waited else self.timeout
        self.sign("ended", f"{LATE}{seconds:g}" if re.search("timed out|timeout", text, re.IGNORECASE) else LOST)
        words = self.words("ended", within=LATE_SECONDS)
        causes = [f"rank {rank}: {word}" for rank, word in words.items() if not word.startswith((LATE, LOST))]
        if causes:
            return RanksApart(causes[0])
        late = {rank: float(word.removeprefix(LATE)) for rank, word in words.items() if word != LOST}
        missing = self._without(words)
        if not late:
            return RanksApart(f"lost {_named(missing)}")
        return self._hanging(missing or self._without(late), max(late.values()), told_by=min(late))

    def _wait(self, page: str, ranks: Iterable[int], within: float) -> bool:
        keys, until = [f"{page}/{rank}" for rank in ranks], time.monotonic() + within
        while not (signed := self.signed.check(keys)) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        return signed

    def _hanging(self, ranks: Collection[int], seconds: float, *, told_by: int) -> RanksApart:
        who = f"{_named(ranks)} did not come" if ranks else "all ranks waited for others that did not come"
        words = f"{who} to {self.place()} within {seconds:g} s: all were ended"
        apart = RanksApart(f"{words}; dltrain resume goes on" if ranks else words)
        apart.hangs, apart.is_told = True, self.rank != told_by
        return apart

    def _without(self, ranks: Collection[int]) -> list[int]:
        """All others."""
        return [rank for rank in range(self.size) if rank not in ranks]


def _named(ranks: Collection[int]) -> str:
    return f"rank {', '.join(map(str, ranks))}" if ranks else "a rank"


def call_roll(*, timeout: float = 300.0) -> Roll | None:
    """Meet the ranks that torchrun, or whoever sets its variables, has started; None without them.

    Raises RanksApart.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return None
    roll = Roll(_store(), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), timeout=timeout)
    roll.meet()
    return roll


def _store() -> Store:
    """Where ranks find each other; on one node apart from what they had left there when torchrun started them again."""
    store: Store
    store, _, size = next(rendezvous("env://"))
    if os.environ.get("LOCAL_WORLD_SIZE") != str(size):  # each node has its own count of restarts
        return store
    return PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
