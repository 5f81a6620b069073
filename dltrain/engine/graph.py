"""The whole step as one CUDA graph: recorded once for each shape of batch, then replayed without Python."""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from weakref import WeakSet

import torch
from torch import Tensor
from torch.optim import Optimizer

from dltrain.engine.device import default_generator, tuning
from dltrain.engine.memory import ran_out
from dltrain.engine.optimizer import be_capturable
from dltrain.engine.search import searches
from dltrain.engine.step import Batch, Engine
from dltrain.engine.totals import Totals

BESIDE = "memory ran out beside what recorded steps hold"


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
        self.graphs = WeakSet[torch.cuda.CUDAGraph]()
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
        if not self.graphs:  # a pool that the last one has left cannot be entered again while anything is in it
            self.pool = torch.cuda.graph_pool_handle()
        try:
            # Another thread may pin the next batches' memory meanwhile, which must not end the recording.
            how: dict[str, Any] = {"pool": self.pool, "stream": self.stream, "capture_error_mode": "thread_local"}
            with _uncollected(), torch.cuda.graph(graph, **how):
                work()
        except BaseException:
            self._abandon(graph, before)
            raise
        self.graphs.add(graph)
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

    The first three run eagerly, for the optimizer to make its state and the libraries to choose their kernels. A shape
    that never comes twice in a row, as that of an epoch's last batch, is not recorded, and once there are recordings
    cuDNN tries no kernels for it, which takes longer than such a step. Rates are tensors on the device,
    which every step fills. Where recording fails, or memory runs out beside what is recorded, all steps are eager and
    `execution` says why.
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
        self.latest: Any = None
        self.recordings: dict[Any, Recording] = {}
        for group in self.optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=self.device)

    def _set_rates(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"].fill_(rate)

    def _take(self, batch: Batch) -> None:
        images, targets = batch
        shape = (images.shape, targets.shape)
        again, self.latest = shape == self.latest, shape
        if shape in self.recordings or (self._is_due(shape, again=again) and self._record(shape, images, targets)):
            recording = self.recordings[shape]
            recording.images.copy_(images, non_blocking=True)
            recording.targets.copy_(targets, non_blocking=True)
            recording.replay()
        else:
            with tuning(when=not self.recordings):
                self.recorder.warm_up(lambda: super(GraphedEngine, self)._take(batch))

    def _give_up(self, why: str) -> None:
        self.failed = True
        self.recordings.clear()
        self.execution = f"eager, because {why}"

    def _attempt(self, work: Callable[[], object], step: int) -> str | None:
        """As every engine; where memory runs out beside that of what was recorded, eagerly and without the latter."""
        lacking = super()._attempt(work, step)
        if lacking and self.recordings:
            self._give_up(BESIDE)
            return super()._attempt(work, step)
        return lacking

    def score(self, batch: Batch, totals: Totals) -> Tensor:
        """As every engine; where memory runs out beside that of what was recorded, again without the latter."""
        try:
            with tuning(when=not self.recordings):
                return super().score(batch, totals)
        except (RuntimeError, MemoryError) as error:
            if not (self.recordings and ran_out(error)):
                raise
        self._give_up(BESIDE)
        return super().score(batch, totals)

    def _is_due(self, shape: Any, *, again: bool) -> bool:
        """Whether to record the step of a shape that is met once more."""
        self.met[shape] += 1
        return again and self.met[shape] > self.warm_ups and self.updated and not self.failed

    def _record(self, shape: Any, images: Tensor, targets: Tensor) -> bool:
        """Whether the step of this shape can be recorded."""
        own = torch.empty_like(images), torch.empty_like(targets)
        try:
            replay = self.recorder.record(lambda: super(GraphedEngine, self)._take(own))
        except RuntimeError as error:
            cause = error.__context__ or error  # a recording that ends in an error raises one of its own
            # Others are forgotten, too: they draw from a generator's state that is the current one no more.
            self._give_up(f"the step could not be recorded: {str(cause).splitlines()[0]}")
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
