"""Evaluations that can be interrupted."""

from collections.abc import Iterator

from dltrain.engine.step import Batch
from dltrain.run.signals import Interrupted
from dltrain.train import Batches
from dltrain.verbs._decisions import Decisions

ROUND = 4  # batches after which ranks hear of each other


class Interruptible:
    """Batches that raise Interrupted once a signal is received, so that an evaluation does not outlast the grace.

    Several ranks raise it after the same round. One may have fewer batches than another: it comes to all rounds.
    """

    def __init__(self, batches: Batches, decisions: Decisions) -> None:
        self.batches, self.decisions = batches, decisions

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """As the batches do."""
        for number, batch in enumerate(self.batches.epoch(epoch, start)):
            if number % ROUND == 0:
                self.decisions.agree(True)
            self._heed()
            yield batch
        while self.decisions.agree(False):
            self._heed()

    def _heed(self) -> None:
        if self.decisions.received:
            raise Interrupted(self.decisions.received[0])
