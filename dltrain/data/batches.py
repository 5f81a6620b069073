"""Batches: each one a function of (seed, epoch, position) alone."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np
import torch
from torch import Generator, Tensor

from .augment import Augment
from .preparation import Preparation
from .shards import Sharded
from .sharing import Sharing
from .sources import Resident, Source, Streamed
from .stored import Stored, as_tensor


class Batches:
    """Inputs such as images uint8 (N, C, H, W) and targets such as labels int64 (N,), served on the device by epochs.

    They are kept there or, with `workers`, in host memory, from which so many processes gather them (0: this one);
    the batches are the same. A batch is gathered, augmented (images) and prepared. The last partial batch is served;
    one of a single example joins the batch before, which batch norm needs. What is not shuffled is served as
    `sequence` lists it, or as it is stored. `limit` is a count of batches,
    `most_examples` of examples, and with `overfit` the first so many of epoch 0 take turns in every epoch. With `ranks`
    only this one's share of every batch is read or, where they are `evaluated`, of all of them, which alone is kept on
    the device. With `sharded` each rank keeps a part on its device, and batches are put together from those of all.
    Lengths, bounds and counts remain those of the whole.
    """

    def __init__(
        self,
        inputs: Stored,
        targets: Tensor | np.ndarray,
        *,
        batch_size: int,
        prepare: Preparation,
        device: torch.device | str = "cpu",
        workers: int | None = None,
        seed: int = 0,
        shuffle: bool = False,
        sequence: Tensor | None = None,
        augment: Augment | None = None,
        limit: int | None = None,
        most_examples: int | None = None,
        overfit: int | None = None,
        ranks: Sharing | None = None,
        evaluated: bool = False,
        sharded: bool = False,
    ) -> None:
        assert len(inputs) == len(targets) > 0
        self.device = torch.device(device)
        self.workers = workers
        self.count = len(inputs)
        self.prepare = prepare
        self.seed = seed
        self.shuffle = shuffle
        self.sequence = sequence
        self.augment = augment
        self.overfit = overfit
        self.batch_size = batch_size
        self.ranks, self.sharded = ranks, sharded
        self.bounds = batch_bounds(min(self.count, most_examples or self.count), batch_size=batch_size)
        if overfit is not None:
            self.bounds = list(islice(cycle(self.bounds[:overfit]), limit or len(self.bounds)))
        self.bounds = self.bounds[:limit]
        self.part = ranks.share(0, self.num_examples, least=0) if ranks and evaluated else None
        self.source = self._source(inputs, targets)
        self.whole = (inputs, targets) if ranks and self.part and ranks.leads else None

    @property
    def num_examples(self) -> int:
        """Examples served in an epoch."""
        return sum(last - first for first, last in self.bounds)

    def __len__(self) -> int:
        return len(self.bounds)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches from number `start`: prepared inputs and targets.

        Labels are classes (B,), or probabilities (B, num_classes) where the augmentation mixes.
        """
        order = self.order(epoch)
        generator = Generator(self.device)
        for position, (inputs, targets) in enumerate(self.source.gather(order, self._own_bounds()[start:]), start):
            if self.augment is not None:
                generator.manual_seed(mix(self.seed, *self._drawn_as(epoch, position)))
                inputs, targets = self.augment(inputs.float(), targets, generator)
            batch = self.prepare.inputs(inputs), self.prepare.targets(targets)
            yield batch if self.ranks is None or self.part else self.ranks.part(batch, self._size(position))

    def _source(self, inputs: Stored, targets: Tensor | np.ndarray) -> Source:
        """Where the examples come from: host memory, the devices of all ranks, or this one."""
        if self.workers is not None:
            return Streamed(inputs, targets, device=self.device, workers=self.workers)
        if self.sharded:
            assert self.ranks is not None, "examples are shared among ranks"
            return Sharded(inputs, targets, device=self.device, ranks=self.ranks)
        return Resident(inputs, targets, device=self.device, part=self.part)

    def _own_bounds(self) -> list[tuple[int, int]]:
        """What the source is asked for; what is evaluated is shared as a whole, and batched then, as the largest."""
        if self.ranks is not None and self.part is not None:
            first, last = self.part
            largest = batch_bounds(-(-self.num_examples // self.ranks.size), batch_size=self.batch_size)
            own = [(first + start, min(first + end, last)) for start, end in largest]
            return [(start, end) for start, end in own if start < end]
        if self.ranks is None or self.sharded:
            return self.bounds
        return [self.ranks.share(*bound) for bound in self.bounds]

    def _size(self, position: int) -> int:
        first, last = self.bounds[position]
        return last - first

    def _drawn_as(self, epoch: int, position: int) -> tuple[int, ...]:
        """The epoch and position whose draws a batch has; those that take turns are drawn once."""
        drawn = (epoch, position) if self.overfit is None else (0, position % self.overfit)
        return drawn if self.ranks is None else (*drawn, *self.ranks.drawn_as)

    def order_digest(self, epoch: int) -> str:
        """SHA-256 of the order in which an epoch takes the examples."""
        order = self.order(epoch)
        return hashlib.sha256(b"" if order is None else order.numpy().tobytes()).hexdigest()

    def order(self, epoch: int) -> Tensor | None:
        """The places of the examples that an epoch takes (n,), in turn; None for all as they are stored."""
        if not self.shuffle:
            return self.sequence
        # Drawn on the CPU, so that every device sees the same order.
        generator = Generator().manual_seed(mix(self.seed, epoch if self.overfit is None else 0))
        return torch.randperm(self.count, generator=generator)

    def in_order(self) -> Batches:
        """The same examples, all of them once, as they are stored: no limit, and nothing that is drawn."""
        plain = copy.copy(self)
        plain.shuffle, plain.sequence, plain.augment, plain.overfit = False, None, None, None
        plain.bounds = batch_bounds(self.count, batch_size=self.batch_size)
        return plain

    def stored(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and targets of some examples (n,) as they are stored, on the device.

        Of examples that are evaluated on several ranks the first one alone has all.
        """
        if self.whole is not None:
            inputs, targets = (as_tensor(values[places.numpy()]).to(self.device) for values in self.whole)
            return inputs, targets
        (examples,) = self.source.gather(places, [(0, len(places))])
        return examples

    def close(self) -> None:
        """End the workers, where there are any."""
        self.source.close()


def batch_bounds(num_examples: int, *, batch_size: int) -> list[tuple[int, int]]:
    """First and last (exclusive) example of each batch of an epoch."""
    starts = list(range(0, num_examples, batch_size))
    if len(starts) > 1 and batch_size > 1 and num_examples - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], num_examples][: len(starts)], strict=True))


def mix(*integers: int) -> int:
    """One seed from several integers.

    torch's CPU generator looks at the low 32 bits alone, so (seed << 32) + epoch would not do; Python's
    hash of a tuple of integers is the same in every process.
    """
    return hash(integers)
