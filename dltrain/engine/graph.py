"""The whole step as one CUDA graph: recorded once for each shape of batch, then replayed without Python."""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from dltrain.engine.device import default_generator
from dltrain.engine.optimizer import be_capturable
from dltrain.engine.search import searches
from dltrain.engine.step import Batch, Engine


class Recorder(Protocol):
    """What records work on a device, so that it can be replayed."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work as it will be recorded, on the stream that records."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work without doing it; what is returned does it. Raises RuntimeError where that cannot be."""


class CudaRecorder:
    """Records CUDA graphs, on a stream of its own and in one pool of memory."""

    abandoned: ClassVar[list[torch.cuda.CUDAGraph]] = []  # which torch before 2.12 may go on to ask for pinned memory

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], None]) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self.stream):
                work()
        finally:  # also where memory ran out: what puts things right must come after what was begun
            torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # Another thread may pin the next batches' memory meanwhile, which must not end the recording.
            how: dict[str, Any] = {"pool": self.pool, "stream": self.stream, "capture_error_mode": "thread_local"}
            with _uncollected(), torch.cuda.graph(graph, **how):
                work()
        except BaseException:
            self._abandon(graph, before)
            raise
        return graph.replay

    def _abandon(self, graph: torch.cuda.CUDAGraph, before: torch.cuda.Stream) -> None:
        """Put right what a recording that failed leaves in the midst of recording, or else none would succeed again."""
        torch.cuda.set_stream(before)
        generator = default_generator(before.device)
        fresh = torch.Generator(before.device).manual_seed(generator.initial_seed())
        generator.graphsafe_set_state(fresh.graphsafe_get_state())
        with suppress(RuntimeError):  # where memory is taken as usual again, as it is since torch 2.12
            torch._C._cuda_endAllocateToPool(before.device.index, self.pool)
            self.abandoned.append(graph)
            torch._C._cuda_releasePool(before.device.index, self.pool)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's collector: it might find another graph, and to destroy one ends a recording."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@dataclass
class Recording:
    """A recorded step and the tensors that it reads its batch from."""

    images: Tensor
    targets: Tensor
    replay: Callable[[], None]


class GraphedEngine(Engine):
    """An engine that replays its step: every step of a shape of batch after the third.

    The first three run eagerly, for the optimizer to make its state and the libraries to choose their kernels; so a
    shape that is met once, the last batch's, is never recorded. Rates are tensors on the device, which every step
    fills. Where recording fails, all steps are eager and `execution` says why.
    """

    warm_ups = 3

    def __init__(self, *args: Any, recorder: Recorder | None = None, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.recorder = CudaRecorder() if recorder is None else recorder
        self.execution = "CUDA graph"
        self.failed = False
        be_capturable(self.optimizer)
        self._forget()

    def load_state_dict(self, state: Any) -> None:
        """As every engine; what was recorded on the old state's memory is forgotten."""
        super().load_state_dict(state)
        self._forget()

    def set_microbatch(self, examples: int | None) -> None:
        """As every engine; the recorded steps have other parts."""
        super().set_microbatch(examples)
        self._forget()

    def _forget(self) -> None:
        self.met: Counter[Any] = Counter()
        self.recordings: dict[Any, Recording] = {}
        for group in self.optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=self.device)

    def _set_rates(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"].fill_(rate)

    def _take(self, batch: Batch) -> None:
        images, targets = batch
        shape = (images.shape, targets.shape)
        if shape not in self.recordings and not self._record(shape, images, targets):
            self.recorder.warm_up(lambda: super(GraphedEngine, self)._take(batch))
            return
        recording = self.recordings[shape]
        recording.images.copy_(images, non_blocking=True)
        recording.targets.copy_(targets, non_blocking=True)
        recording.replay()

    def _record(self, shape: Any, images: Tensor, targets: Tensor) -> bool:
        """Whether the step of this shape is recorded now; it is due once the shape was met often enough."""
        self.met[shape] += 1
        if self.failed or not self.updated or self.met[shape] <= self.warm_ups:
            return False
        own = torch.empty_like(images), torch.empty_like(targets)
        try:
            replay = self.recorder.record(lambda: super(GraphedEngine, self)._take(own))
        except RuntimeError as error:
            cause = error.__context__ or error  # a recording that ends in an error raises one of its own
            self.failed = True
            self.recordings.clear()  # which draw from a generator's state that is the current one no more
            self.execution = f"eager, because the step could not be recorded: {str(cause).splitlines()[0]}"
            return False
        self.recordings[shape] = Recording(*own, replay)
        return True


def why_eager(optimizer: Optimizer) -> str | None:
    """What keeps an optimizer's step out of a CUDA graph: state, arithmetic or decisions on the host."""
    if searches(optimizer):
        return f"{type(optimizer).__name__} evaluates the loss within its step and decides by it"
    if all("capturable" in group or group.get("fused") for group in optimizer.param_groups):
        return None
    return f"{type(optimizer).__name__} has neither a fused nor a capturable step"
