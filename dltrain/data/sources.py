"""Where the inputs of batches come from: they are on the device, or stream to it from host memory."""

from __future__ import annotations

import atexit
import signal
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .stored import Stored, as_tensor

Bounds = Sequence[tuple[int, int]]
Place = slice | np.ndarray


class Source(Protocol):
    """Examples to gather from."""

    def gather(self, order: Tensor | None, bounds: Bounds) -> Iterator[tuple[Tensor, Tensor]]:
        """Stored inputs and targets, both on the device, of each batch of an epoch.

        A batch is what stands from its first to its last (exclusive) place of `order`, a permutation of the
        examples on the CPU, or of the examples themselves.
        """

    def close(self) -> None:
        """End the workers, where there are any; the next epoch starts new ones."""


class Resident:
    """Examples on the device: all, or without an order those of `part` (first, last)."""

    def __init__(
        self,
        inputs: Stored,
        targets: Tensor | np.ndarray,
        *,
        device: torch.device,
        part: tuple[int, int] | None = None,
    ) -> None:
        self.first = part[0] if part else 0
        self.inputs, self.targets = placed(inputs, targets, device=device, part=part)

    def gather(self, order: Tensor | None, bounds: Bounds) -> Iterator[tuple[Tensor, Tensor]]:
        if order is not None:
            order = uploaded(order, self.inputs.device)
        for first, last in bounds:
            chosen = slice(first - self.first, last - self.first) if order is None else order[first:last]
            yield self.inputs[chosen], self.targets[chosen]

    def close(self) -> None:
        """There are no workers."""


class Streamed:
    """Examples in host memory, gathered ahead of need by worker processes, or by this one where `workers` is 0.

    The workers are forked by the first epoch, so that they share the inputs without a copy; they serve all epochs,
    one at a time, until `close`. A batch is one item of the loader: what is passed over is never read.
    """

    def __init__(self, inputs: Stored, targets: Tensor | np.ndarray, *, device: torch.device, workers: int) -> None:
        self.examples = HostExamples(inputs, targets)
        self.device, self.workers = device, workers
        self.places = Places()
        self.loader: DataLoader | None = None
        self.end_workers: Callable[[], object] | None = None

    def gather(self, order: Tensor | None, bounds: Bounds) -> Iterator[tuple[Tensor, Tensor]]:
        # As numpy arrays: a part of a tensor would be sent to a worker with all of its memory.
        places = [slice(*bound) if order is None else order[slice(*bound)].numpy() for bound in bounds]
        self.places.now = places
        for inputs, targets in self._loaded():
            assert self.places.now is places, "an epoch that was begun later has taken over"
            yield inputs.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)

    def close(self) -> None:
        self.loader = None
        if self.end_workers is not None:
            self.end_workers()

    def _loaded(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches at `places`, in host memory, which is pinned for CUDA."""
        if self.loader is not None:
            return iter(self.loader)
        with deaf_to_stopping(), warnings.catch_warnings():
            # Python warns of forking where there are threads (a worker only copies bytes), torch of many workers.
            warnings.simplefilter("ignore")
            self.loader = self._make_loader()
            batches: Any = iter(self.loader)
        if self.workers:
            # At exit Python would wait for ever: they are deaf to the signal that it ends them with.
            self.end_workers = weakref.finalize(self, batches._shutdown_workers)
            atexit.register(self.end_workers)
        return batches  # type: ignore[no-any-return]

    def _make_loader(self) -> DataLoader:
        several: dict[str, Any] = {
            "num_workers": self.workers,
            "persistent_workers": True,
            "multiprocessing_context": "fork",
        }
        return DataLoader(
            self.examples,
            sampler=self.places,
            batch_size=None,
            pin_memory=self.device.type == "cuda",
            # The loader draws a seed for its workers, and would take it from the global generator.
            generator=torch.Generator(),
            **(several if self.workers else {}),
        )


class HostExamples(Dataset):
    """A data set whose items are whole batches."""

    def __init__(self, inputs: Stored, targets: Tensor | np.ndarray) -> None:
        self.inputs = inputs.numpy() if isinstance(inputs, Tensor) else inputs
        self.targets = np.asarray(targets)

    def __getitem__(self, place: Place) -> tuple[Tensor, Tensor]:
        return as_tensor(self.inputs[place]), as_tensor(self.targets[place])


class Places:
    """A sampler of the places that are set when an epoch begins."""

    now: Sequence[Place] = ()

    def __iter__(self) -> Iterator[Place]:
        return iter(self.now)


def placed(
    inputs: Stored, targets: Tensor | np.ndarray, *, device: torch.device, part: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Inputs and targets on the device; of a part (first, last) nothing else is read, copied or kept in memory."""
    rows, apart = slice(*part) if part else slice(None), part is not None
    return as_tensor(inputs[rows]).to(device, copy=apart), as_tensor(targets[rows]).to(device, copy=apart)


def uploaded(places: Tensor, device: torch.device) -> Tensor:
    """Places on the CPU as indices on the device, for which nothing waits."""
    return (places.pin_memory() if device.type == "cuda" else places).to(device, non_blocking=True)


@contextmanager
def deaf_to_stopping() -> Iterator[None]:
    """Processes that start in this block hear no request to stop, which goes to all of a run's process group.

    The run itself ends its workers, once it has saved.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
