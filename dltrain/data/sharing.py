"""What data need of the processes that train together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from torch import Tensor

T = TypeVar("T")


class Team(Protocol):
    """Processes that load the same data, of which all must come to `each` and `once`."""

    rank: int

    @property
    def leads(self) -> bool: ...

    @property
    def neighbours(self) -> range:
        """The ranks of this machine."""

    def each(self, work: Callable[[], T]) -> list[T]:
        """Have every rank do its part of some work; returns what all have, in their order, or raises for all."""

    def once(self, work: Callable[[], T]) -> T:
        """Have the first rank do some work, and tell all what came of it."""

    def share(self, first: int, last: int, *, least: int = 2, rank: int | None = None) -> tuple[int, int]: ...


class Sharing(Team, Protocol):
    """The processes that train together, of which each has its part of every batch."""

    size: int

    @property
    def drawn_as(self) -> tuple[int, ...]: ...

    def part(self, batch: tuple[Tensor, Tensor], examples: int) -> tuple[Tensor, Tensor]: ...

    def exchange(self, rows: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor: ...


class Alone:
    """A team of this process."""

    rank, leads, neighbours = 0, True, range(1)

    def each(self, work: Callable[[], T]) -> list[T]:
        return [work()]

    def once(self, work: Callable[[], T]) -> T:
        return work()

    def share(self, first: int, last: int, *, least: int = 2, rank: int | None = None) -> tuple[int, int]:
        return first, last
