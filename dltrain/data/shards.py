"""Examples of which every rank keeps a part on its device, and has from the others what its batches need."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate, groupby

import numpy as np
import torch
from torch import Tensor

from .sharing import Sharing
from .sources import Bounds, placed, uploaded
from .stored import Stored

MOST_BYTES = 1 << 24  # of the inputs of batches that are exchanged at once, by all ranks together


class Sharded:
    """A rank's part of the examples, which are stored one rank's after the other's.

    All ranks must come to every batch together. The examples of several batches change hands by one all-to-all each of
    inputs and targets, whose sizes every rank knows from the order. Who sends what is the host's to find, in numpy.
    """

    def __init__(self, inputs: Stored, targets: Tensor | np.ndarray, *, device: torch.device, ranks: Sharing) -> None:
        self.ranks, self.count = ranks, len(inputs)
        self.parts = [ranks.share(0, self.count, least=0, rank=rank) for rank in range(ranks.size)]
        own = placed(inputs, targets, device=device, part=self.parts[ranks.rank])
        self.inputs, self.targets = (values.contiguous() for values in own)
        self.ends = [last for _, last in self.parts]

    def gather(self, order: Tensor | None, bounds: Bounds) -> Iterator[tuple[Tensor, Tensor]]:
        """As a `Source`, but this rank's share of each of the whole batches in `bounds`."""
        places = np.arange(self.count) if order is None else order.numpy()
        for group in self._groups(bounds):
            shares = [[self.ranks.share(*bound, rank=rank) for bound in group] for rank in range(self.ranks.size)]
            wanted = [np.concatenate([places[first:last] for first, last in share]) for share in shares]
            lengths = [last - first for first, last in shares[self.ranks.rank]]
            inputs, targets = self._exchange(wanted)
            yield from zip(inputs.split(lengths), targets.split(lengths), strict=True)

    def close(self) -> None:
        """There are no workers."""

    def _groups(self, bounds: Bounds) -> Iterator[Bounds]:
        """Batches that change hands at once: a single one, or as many as take about MOST_BYTES."""
        example = self.inputs.element_size() * math.prod(self.inputs.shape[1:])
        before = accumulate((last - first for first, last in bounds), initial=0)
        numbered = zip(bounds, before, strict=False)
        for _, group in groupby(numbered, key=lambda each: each[1] * example // MOST_BYTES):
            yield [bound for bound, _ in group]

    def _exchange(self, wanted: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """The examples at the places that this rank wants, of all the places that each rank wants."""
        rank, size = self.ranks.rank, self.ranks.size
        owners = np.searchsorted(self.ends, wanted[rank], side="right")
        received = np.bincount(owners, minlength=size).tolist()
        first, last = self.parts[rank]
        given = [places[(places >= first) & (places < last)] - first for places in wanted]
        sent = [len(places) for places in given]
        rows = uploaded(torch.from_numpy(np.concatenate(given)), self.inputs.device)
        turns = uploaded(torch.from_numpy(owners.argsort(kind="stable").argsort()), self.inputs.device)
        inputs, targets = (
            _laid_out(self.ranks.exchange(values[rows], sent, received), values)[turns]
            for values in (self.inputs, self.targets)
        )
        return inputs, targets


def _laid_out(rows: Tensor, stored: Tensor) -> Tensor:
    """Rows as they are stored: the stride of a dimension of one tells nothing, yet torch chooses kernels by it.

    Where nothing is stored here, strides tell nothing at all.
    """
    return rows.as_strided(rows.shape, (rows.stride(0), *stored.stride()[1:])) if len(stored) else rows
