"""A look into one early step and the making of one early batch: which operations make the host wait for the device."""

import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dltrain.engine.precision import Precision
from dltrain.engine.step import Batch, Engine

WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
COPIES, MASKS = {"copy_", "_to_copy"}, {torch.bool, torch.uint8}


class Watch(TorchDispatchMode):
    """Watches the operations of a block of code, which does what it would have done.

    `operations` counts them. `update_seconds` is the time of those on an engine's whole weights and their like, which
    any size of batch takes; 0 on a GPU, where the host could only time how long it takes to queue them. `waits` are the
    places, "file:line", at which the host waits for the device's results. A CPU is its own host, and the places are
    those that would wait elsewhere; torch's optimizers do, but not elsewhere.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.device = engine.device
        self.shapes = {parameter.shape for parameter in engine.parameters}
        self.operations, self.update_seconds = 0, 0.0
        self.waits: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Or else torch's compiler is imported, which takes a second."""
        return False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Or else what is compiled would be compiled once more, to be watched."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        start = time.perf_counter()
        result = func(*args, **kwargs)
        seconds = time.perf_counter() - start
        self.operations += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        shapes = {tensor.shape for tensor in tensors if tensor.dim()}
        if self.device.type == "cpu" and shapes and shapes <= self.shapes:
            self.update_seconds += seconds
        place = self._place() if self._waits(func, args, kwargs, tensors, result) else None
        if place is not None:
            self.waits.append(place)
        return result

    def _waits(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor], result: Any) -> bool:
        """Whether the host needs to know numbers of the device before it can go on."""
        name = func.overloadpacket.__name__
        if name in COPIES:
            queued = kwargs.get("non_blocking") or True in args[2:]
            return not queued and len({tensor.device.type for tensor in (*tensors, result)}) > 1
        if all(tensor.device.type != self.device.type for tensor in tensors):
            return False
        if name.startswith("index"):
            return any(isinstance(index, Tensor) and index.dtype in MASKS for index in tree_leaves(args[1:2]))
        return not WAITING.isdisjoint(func.tags)

    def _place(self) -> str | None:
        """Where the operation under way was called, outside torch; None for what an optimizer does on a CPU alone."""
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module.startswith("torch.optim.") and self.device.type == "cpu":
                return None
            if module != __name__ and module.split(".")[0] != "torch":
                return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            frame = frame.f_back
        return "the backward pass"  # which on a GPU has a thread of its own


class Probe(Watch):
    """Watches one step of an engine, the one after its first update: the forward pass, the backward pass, the update.

    `making` has watched the making of a batch.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.making = Watch(engine)
        take = engine.step

        def step(batch: Batch, number: int) -> None:
            if not engine.updated:
                take(batch, number)
                return
            del engine.step  # from now on it is the engine's own again
            with self:
                take(batch, number)

        engine.step = step  # type: ignore[assignment, method-assign]

    def watched(self, batches: Any) -> "Watched":
        """The same batches, of which one is watched as it is made."""
        return Watched(batches, self.making)


class Watched:
    """Batches of which one is watched as it is made: the second of an epoch, as the first may set things up."""

    def __init__(self, batches: Any, watch: Watch) -> None:
        self.batches, self.watch, self.over = batches, watch, False

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Serve the batches of an epoch from number `start`."""
        batches = iter(self.batches.epoch(epoch, start))
        if not self.over:
            yield from islice(batches, 1)
            yield from self._second(batches)
        yield from batches

    def _second(self, batches: Iterator[Any]) -> Iterator[Any]:
        with self.watch:  # what is done with a batch is not its making
            second = list(islice(batches, 1))
        self.over = bool(second)
        yield from second


def operation_seconds(like: Engine, optimizer_class: Callable[..., Optimizer], *, steps: int = 20) -> float:
    """What an operation costs before it computes anything: Python, dispatch, autograd, launch.

    It is the time of a step on next to nothing, divided by its operations, in the middle one of five attempts of an
    engine like the given one. `optimizer_class` has a fused step.
    """
    model = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(2, 2), nn.ReLU()))).to(like.device)
    engine = (Engine if like.execution.startswith("eager") else type(like))(
        model,
        optimizer_class(model.parameters(), lr=0.0, fused=True),
        loss=nn.functional.mse_loss,
        metrics={},
        schedule=lambda step: 1.0,
        precision=Precision("fp32", like.device),
    )
    probe, batch = Probe(engine), (torch.ones(2, 2, device=like.device), torch.ones(2, 2, device=like.device))
    attempts = []
    for _ in range(6):
        start = time.perf_counter()
        for step in range(steps):
            engine.step(batch, step)
        engine.report(epoch=False)
        attempts.append((time.perf_counter() - start) / steps)
    return median(attempts[1:]) / probe.operations
