"""Evaluations that can be interrupted."""

from collections.abc import Iterator, Sequence

from dltrain.engine.step import Batch
from dltrain.run.signals import Interrupted
from dltrain.train import Batches


class Interruptible:
    """Batches that raise Interrupted once a signal is received, so that an evaluation does not outlast the grace."""

    def __init__(self, batches: Batches, received: Sequence[int]) -> None:
        self.batches, self.received = batches, received

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """As the batches do."""
        for batch in self.batches.epoch(epoch, start):
            if self.received:
                raise Interrupted(self.received[0])
            yield batch
