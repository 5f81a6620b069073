"""What each of several ranks does to find out what a step and its parts take; the first one writes what was seen."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel as Averaging

from dltrain.bench.machine import stopwatch
from dltrain.bench.measure import CHECKED_STEPS
from dltrain.bench.task import first_batches
from dltrain.build import build
from dltrain.config.compose import Composition
from dltrain.engine import Engine, Ranks, joined, select
from dltrain.engine.step import Batch
from dltrain.run.folder import write_json

# A step as it is; without averaging gradients (DDP's no_sync); and without loss and batch norm's statistics too.
WHOLE, UNAVERAGED, ALONE = "whole", "unaveraged", "alone"
SIZES = [2**power for power in range(12, 27, 2)]  # bytes, 4 KiB to 64 MiB


def measure(
    composition: Composition, *, others: Sequence[Composition], seconds: float, sizes: Sequence[int], path: Path
) -> int:
    """Time steps of some compositions, each way for about so long, and all-reduces of so many bytes."""
    device = select(composition.config.device.name)
    with joined(device) as ranks:
        found = {
            "steps": [steps(each, ranks, seconds=seconds) for each in (composition, *others)],
            "all_reduce": {str(size): all_reduce_seconds(ranks, size, device) for size in sizes},
        }
        if ranks.leads:
            write_json(path, found)
    return 0


def steps(composition: Composition, ranks: Ranks, *, seconds: float) -> dict[str, Any]:
    """Seconds that some steps take in every way, with what they are steps of."""
    run = build(composition.config, ranks=ranks)
    engine, batches = run.engine, first_batches(run)
    take(engine, batches, CHECKED_STEPS)
    loss = engine.last_loss.item()
    once = stopwatch(lambda: take(engine, batches, 2), engine.device) / 2
    (number,) = ranks.highest([max(2, math.ceil(seconds / once))])
    ways = (WHOLE, UNAVERAGED, ALONE) if ranks.size > 1 else (WHOLE,)
    return {
        "batch_size": int(composition.config.data.batch_size),
        "image_size": int(composition.config.data.image_size),
        "precision": engine.precision.name,
        "loss": loss,
        "steps": number,
        "seconds": {way: way_seconds(engine, batches, number, way=way) for way in ways},
        **talk(engine, batches),
    }


def count(composition: Composition, *, path: Path) -> int:
    """Write what ranks tell each other in a step, and time nothing."""
    with joined(select(composition.config.device.name)) as ranks:
        run = build(composition.config, ranks=ranks)
        take(run.engine, first_batches(run), 2)  # after which DDP's buckets are in the order of the backward pass
        found = talk(run.engine, first_batches(run))
        if ranks.leads:
            write_json(path, found)
    return 0


def talk(engine: Engine, batches: list[Batch]) -> dict[str, Any]:
    """What ranks tell each other in a step: gradients by buckets, and then loss and batch norm's statistics."""
    told = [engine.last_loss, *engine.statistics]
    return {
        "batch_norm": bool(engine.statistics),
        "statistics_bytes": sum(each.numel() for each in told) * engine.last_loss.element_size(),
        "buckets": buckets(engine, engine.forward, batches) if isinstance(engine.forward, Averaging) else [],
    }


def take(engine: Engine, batches: list[Batch], count: int) -> None:
    """Take so many steps on the batches in turn."""
    for step, batch in enumerate(islice(cycle(batches), count)):
        engine.step(batch, step)


def way_seconds(engine: Engine, batches: list[Batch], count: int, *, way: str) -> float:
    """Seconds that steps take the slowest of the ranks, which begin together, after one that does not count."""
    with _without(engine, way):
        take(engine, batches, 1)
        engine.ranks.gather(None)
        seconds = stopwatch(lambda: take(engine, batches, count), engine.device)
    return max(engine.ranks.gather(seconds))


class Silent(Ranks):
    """Ranks that tell each other neither losses nor statistics."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Leave each rank its own."""


@contextmanager
def _without(engine: Engine, way: str) -> Iterator[None]:
    """Where steps leave out what ranks tell each other, as far as the way says."""
    ranks = engine.ranks
    engine.ranks = Silent(ranks.rank, ranks.size) if way == ALONE else ranks
    try:
        with engine.strategy.unshared(engine.forward, when=way != WHOLE):
            yield
    finally:
        engine.ranks = ranks


def buckets(engine: Engine, forward: Averaging, batches: list[Batch]) -> list[dict[str, float]]:
    """Bytes of DDP's buckets in their order, and after what share of the backward pass each is ready.

    The last one is ready with the last gradient, which ends it. Times are the host's. Leaves gradients behind, and a
    hook: for the end of all measuring.
    """
    passes = []
    seen: list[tuple[int, float]] = []

    def hook(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        seen.append((bucket.buffer().nbytes, time.perf_counter()))
        return default_hooks.allreduce_hook(None, bucket)  # type: ignore[arg-type]

    forward.register_comm_hook(None, hook)
    for batch in batches:
        for loss, *_ in engine.losses(batch):
            seen.clear()
            start = time.perf_counter()
            engine.precision.scale_up(loss).backward()
        passes.append([(size, (at - start) / (seen[-1][1] - start)) for size, at in seen])
    return [
        {"bytes": several[0][0], "ready": median(share for _, share in several)}
        for several in zip(*passes, strict=True)
    ]


def all_reduce_seconds(ranks: Ranks, size: int, device: torch.device) -> float:
    """Seconds of an all-reduce of so many bytes of float32, the median of some."""
    tensor = torch.ones(size // 4, device=device)
    ranks.gather(None)
    taken = [stopwatch(lambda: dist.all_reduce(tensor), device) for _ in range(12 if size < 2**22 else 5)]
    return max(ranks.gather(median(taken[2:])))
