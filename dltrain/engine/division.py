"""How ranks divide work on data: each does its part, and all learn what came of it."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class Division:
    """What `Ranks` are to data; all of them must come to `each` and `exchange`."""

    rank: int
    size: int
    patient: Any = None  # the group in which they meet where one may honestly be late

    @property
    def neighbours(self) -> range:
        """The ranks of this machine, as torchrun numbers them."""
        first = self.rank - int(os.environ.get("LOCAL_RANK", self.rank)) if self.size > 1 else 0
        return range(first, first + int(os.environ.get("LOCAL_WORLD_SIZE", self.size)) if self.size > 1 else 1)

    def each(self, work: Callable[[], T]) -> list[T]:
        """Have every rank do its part of some work; returns what all have, in their order.

        Where one meets an error, all raise it; of several errors that of the first rank.
        """
        if self.size == 1:
            return [work()]
        outcome: tuple[Any, Exception | None]
        try:
            outcome = work(), None
        except Exception as error:
            outcome = None, error
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, outcome, group=self.patient)
        for _, failure in every:
            if failure is not None:
                failure.is_told = self.rank > 0
                raise failure
        return [result for result, _ in every]

    def exchange(self, rows: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Give each rank so many of some rows (n, ...), in turn; returns those that each gave to this one, in turn."""
        result = rows.new_empty((sum(received), *rows.shape[1:]))
        dist.all_to_all_single(result, rows, list(received), list(sent))
        return result
