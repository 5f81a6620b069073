"""Running out of memory: noticing it, finding what fits, and words that help."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

# Of an allocator, of the CUDA runtime, and of cuBLAS and cuDNN.
WORDS = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


class OutOfMemory(Exception):  # noqa: N818
    """A step does not fit into memory."""

    exit_code = 71


class HasParts(Protocol):
    """What computes a batch in parts of `microbatch` examples."""

    microbatch: int | None


def parts(
    batch: tuple[Tensor, Tensor], microbatch: int | None, *, shares: tuple[int, int] | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets of a batch, `microbatch` examples at a time or fewer; None: all at once.

    Ranks whose smallest and largest `shares` are given have as many parts.
    """
    inputs, targets = batch
    smallest, largest = shares or (len(inputs), len(inputs))
    fewest = 1 if microbatch == 1 else 2  # a part of a single example joins another: batch norm on vectors needs two
    count = min(-(-largest // (microbatch or largest)), max(1, smallest // fewest))
    return list(zip(inputs.tensor_split(count), targets.tensor_split(count), strict=True))


def lacking(work: Callable[[], object]) -> str | None:
    """Do the work; where memory ran out for it, return what torch says of that, and hold on to nothing."""
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        return ". ".join(str(error).split(". ")[:3]) or "no more memory"
    return None


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory could not be had."""
    told = any(words in str(error) for words in WORDS)
    return told or isinstance(error, MemoryError | torch.OutOfMemoryError)


def fitting(engine: HasParts, attempt: Callable[[], str | None], examples: int) -> int | None:
    """The largest part of a batch, by halves of what was tried, with which an attempt succeeds; None without one."""
    before, part = engine.microbatch, engine.microbatch or examples
    try:
        while part > 1:
            engine.microbatch = part = part // 2
            if attempt() is None:
                return part
        return None
    finally:
        engine.microbatch = before


def words(images: Sequence[int], lacking: str, fitting: int | None) -> str:
    """What was asked, by the shape of the images (N, C, H, W), and what fits."""
    count, *shape = images
    asked = f"out of memory: a step on {count} images of {'x'.join(map(str, shape))}: {lacking}"
    if fitting is None:
        return f"{asked}; not even one image at a time fits"
    return f"{asked}; {fitting} at a time fit: trainer.microbatch={fitting}, or auto, or a smaller data.batch_size"
